"""How long a polar step is: rho of a whole stage, and the size of momentum beside that of gradients.

Written once; where the numbers are arrays and numba is installed, they are compiled with what calls them.
"""

from typing import Any, NamedTuple

from pontryagin.optim.fading import NOISE_LEVEL_OF_MOMENTUM, floored, long_mean, new_peak
from pontryagin.optim.numbers import Numbers, clip, lerp, reduced, spread, sqrt, where

_NOISE = 0.25
"""What Nesterov momentum of 0.9 leaves of gradients that are noise alone, root mean square: 0.27."""
_SIZE_DECAY = 0.98
"""Of the mean squared gradient that momentum is compared with: longer than momentum's own memory of ten."""


class Sizes(NamedTuple):
    """Running means of |G|^2 of every part, its weight; over a longer time, and the peak of that."""

    size: Numbers
    size_weight: Numbers
    long_size: Numbers
    peak: Numbers


def momentum_length(known: Sizes, square: Numbers, ahead: Numbers, steps: int) -> tuple[Numbers, Sizes]:
    """(The size of the momentum over what momentum leaves of noise of the gradients' size, at most 1; the new
    running means). square, ahead: |G|^2 and that of the momentum; steps: with this one."""
    size = lerp(known.size, square, 1 - _SIZE_DECAY)
    weight = lerp(known.size_weight, 1.0, 1 - _SIZE_DECAY)
    long_size = long_mean(known.long_size, square, steps)
    peak = new_peak(known.peak, long_size, steps)
    noise = sqrt(floored(size / weight, long_size, peak, NOISE_LEVEL_OF_MOMENTUM))
    length = clip(where(noise > 0, sqrt(ahead) / (_NOISE * noise), 0.0), None, 1.0)
    return length, Sizes(size, weight, long_size, peak)


def renewed(square: Numbers, weight: Numbers, moved: Numbers, rho_decay: float, segments: Any
            ) -> tuple[Numbers, Numbers]:
    """The running mean of the squared changes of the outputs that a polar step causes, and its weight; a zero
    gradient causes none to count. moved: of this step."""
    counts = where(reduced(segments, moved) > 0, 0.0 * weight + (1 - rho_decay), 0.0)
    return lerp(square, moved, spread(segments, counts)), lerp(weight, 1.0, counts)


def polar_scale(square: Numbers, weight: Numbers, length: Numbers, tiny: float, segments: Any) -> Numbers:
    """1 / rho, times the length."""
    mean = reduced(segments, square) / segments.lengths / where(weight > tiny, weight, tiny)
    return where(mean > 0, mean**-0.5 * length, 0.0)
