"""How often the moments and their factorization are renewed: as often as a share of the step's work allows.

The work is counted, not timed, so that equal runs are bitwise equal on any machine and on every process.
"""

from math import ceil

_PROBES, _WIDEST, _LATER = 4, 16, 64
"""Probes of the variance between two powers of two, their widest distance in the first thousand steps, and
what part of the steps it is later: deep plain networks learn with them, and a run of a thousand steps takes
80, one of ten thousand 290."""
_SETTLED, _CALM = 64, 1.1
"""Steps after which probes come less often as long as none of them moves what is known by more than such a
factor. (They took an eighth of the seconds of small networks.)"""
STRETCHES = 1, 2, 4
"""How many times as wide their distance may be."""
_EIGEN = 60.0
"""Measured on CPUs: an eigendecomposition of size d costs about as much time as 60 d^3 flops of products."""
_SUBSPACE = 400.0
"""The same for the factorizations of a Nystrom approximation, relative to inputs * rank^2."""
DEVICE_LATENCY = 2e11
"""What a refresh costs on a device beside its flops, in flops of bfloat16 products: about a millisecond of an
H100, in which small factorizations wait for one another."""
_LONGEST = 1000
"""Steps between two refreshes at most."""


def propagation_flops(positions: int, outputs: int, inputs: int) -> float:
    """Forward and backward pass of W x at so many positions: three products."""
    return 6.0 * positions * outputs * inputs


def refresh_flops(rows: int, inputs: int, rank: int, groups: int) -> float:
    """Second moment of so many rows, and its factorization; in a subspace, its product with a basis, and a
    new basis."""
    if inputs <= rank:
        return groups * (2.0 * rows * inputs * inputs + _EIGEN * inputs**3)
    return groups * (4.0 * rows * inputs * rank + _SUBSPACE * inputs * rank * rank)


def period(refresh: float, step: float, share: float) -> int:
    """Steps between two refreshes, so that they cost at most `share` of the propagation; at least 1, as where
    nothing has been propagated, for a process without samples has no say in it."""
    return 1 if step == 0 else min(max(ceil(refresh / max(share * step, 1.0)), 1), _LONGEST)


def is_probe_due(step: int, stretch: int = 1) -> bool:
    """Whether to probe the states in step 1, 2, 3 ...: in all of the first, then at distances that grow with
    the steps, and are so many times as wide where states hardly change."""
    power = 1 << (step.bit_length() - 1)
    distance = min(max(power // _PROBES, 1), max(power // _LATER, _WIDEST))
    return step % (distance if step < _SETTLED else distance * stretch) == 0


def stretched(stretch: int, growth: float) -> int:
    """How many times as wide the distance between probes is after one: twice what it was, up to four times,
    where states are calm. growth: the largest factor by which what is known of a stage changed, up or
    down."""
    return min(2 * stretch, STRETCHES[-1]) if growth <= _CALM else STRETCHES[0]


def is_due(step: int, every: int) -> bool:
    """Whether to refresh before step 1, 2, 3 ...: at the first, then at doubling distances up to `every`,
    then by it."""
    if step % every == 0:
        return True
    return step < every and (step & (step - 1)) == 0
