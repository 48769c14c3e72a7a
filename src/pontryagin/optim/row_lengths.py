"""How long the rows of a step are: rho of each output, and what the whole promises.

Written once; where the numbers are arrays and numba is installed, each function is one compiled call.
"""

from math import inf
from typing import Any, NamedTuple

import numpy as np

from pontryagin.optim import fading, numbers
from pontryagin.optim.compiled import Compiled, at, compiler, element
from pontryagin.optim.fading import floored, is_faded, long_mean, new_peak, unrisen, within
from pontryagin.optim.numbers import Numbers, clip, lerp, maximum, reduced, spread, spread_inside, sqrt, where
from pontryagin.optim.promise import OWN
from pontryagin.optim.whitening import own_share

_LARGEST = 1e37
"""Of a scale, a float32 later: where all gradients have been tiny, the next may be 0 and is to stay it."""


class Known(NamedTuple):
    """Running means: of the squared changes of every output, over a longer time too, and of every part the
    weight of the former and the peak of the latter."""

    square: Numbers
    long_square: Numbers
    square_weight: Numbers
    peak: Numbers


class Layout(NamedTuple):
    """Segments for compiled functions: of every output its part, and 1 where there is no padding; of every
    part its outputs."""

    places: np.ndarray
    inside: np.ndarray
    lengths: np.ndarray


def outputs_scale(known: Known, square: Numbers, units: Numbers | None, rho_decay: float, steps: int,
                  segments: Any, silent: Numbers) -> tuple[Numbers, Known]:
    """(1 / rho_i, the new running means): rho_i = sqrt of the running mean of the squared changes of output
    i.

    square: of the changes that the gradient divided by `units` causes, of each output (None: 1); the scale is
    for these changes. So every output moves by about 1 (root mean square over samples) in a step before the
    factor lr, whatever the gradient's scale; by less where gradients fade (fading.py). Where no gradient has
    ever come, 0. silent: what part of the mean over outputs keeps rho of silent ones from vanishing.
    """
    if units is not None:
        square = square * units * units
    new_square = lerp(known.square, square, 1 - rho_decay)
    weight = lerp(known.square_weight, 1.0, 1 - rho_decay)
    long_square = long_mean(known.long_square, square, steps)
    long = reduced(segments, long_square) / segments.lengths
    peak = new_peak(known.peak, long, steps)
    mean_square = new_square / spread(segments, weight)
    mean_square = unrisen(mean_square, square, spread(segments, is_faded(long, peak)))
    mean_square = floored(mean_square, long_square, spread_inside(segments, peak))
    whole = mean_square + spread(segments, reduced(segments, mean_square) / segments.lengths * silent)
    scale = where(whole <= 0, inf, whole)**-0.5
    if units is not None:
        scale = scale * units
    return clip(scale, None, _LARGEST), Known(new_square, long_square, weight, peak)


def row_lengths(known: Known, square: Numbers, norm: Numbers, share: Numbers, units: Numbers | None,
                rho_decay: float, steps: int, segments: Any, silent: Numbers
                ) -> tuple[Numbers, Numbers, Known]:
    """(what each row is multiplied by, the norm of each part then, the new running means). norm: of each row
    before; share: of it that is taken."""
    scale, new = outputs_scale(known, square, units, rho_decay, steps, segments, silent)
    scale = scale * share
    length = norm * scale
    return scale, sqrt(reduced(segments, length * length)), new


def limited(scale: Numbers, norm: Numbers, limit: Numbers, segments: Any) -> Numbers:
    """The rows' scale where the norm of a part is to be within its limit."""
    return scale * spread(segments, within(norm, limit))


def row_promises(own: Numbers, past: Numbers, known: Numbers, certain: Numbers, momentum: float, steps: int
                 ) -> tuple[Numbers, Numbers, Numbers]:
    """(the first two numbers of a Promise, and <G, v> of each part, v without its bias towards 0). own, past:
    <G, d> and <G, v> of each part. known: the weight of what lasts, 0 before the first step, which has no
    past."""
    share = where(known > 0, OWN, 0.0 * known + (1 - momentum**2))
    return (own * share * certain).sum(), past.sum() * (1 - OWN), past / max(1 - momentum**steps, 1e-3)


def found_rows(sums: Numbers, own: Numbers, root: Numbers, shift: Numbers, is_half: bool
               ) -> tuple[Numbers, Numbers, Numbers]:
    """(the mean squared change of each output, |dW|, the share of its row that is taken), from what
    `compiled.measured` sums, and own, the length that the row had before others had a say in it."""
    square = sums[0] - sums[3] if is_half else sums[2]
    moved = maximum(square - shift * sums[1], 0.0) + sums[3]
    return moved, sqrt(sums[1]), own_share(own, sqrt(sums[0]), root)


def _reduced(segments: Layout, values: np.ndarray) -> np.ndarray:
    found = np.zeros(len(segments.lengths), np.float64)
    for n in range(len(values)):
        found[segments.places[n]] += values[n]
    return found


def _spread(segments: Layout, values: np.ndarray) -> np.ndarray:
    found = np.empty(len(segments.places), values.dtype)
    for n in range(len(found)):
        found[n] = values[segments.places[n]]
    return found


def _spread_inside(segments: Layout, values: np.ndarray) -> np.ndarray:
    found = np.empty(len(segments.places), values.dtype)
    for n in range(len(found)):
        found[n] = values[segments.places[n]] * segments.inside[n]
    return found


def _where(condition: np.ndarray, one: Any, other: Any) -> np.ndarray:
    """numpy's own takes numba ten seconds to compile."""
    found = np.empty(condition.shape, np.float64)
    for n in range(condition.size):
        found.flat[n] = at(one, n) if condition.flat[n] else at(other, n)
    return found


def _maximum(one: Any, other: Any) -> Any:
    return np.maximum(one, other)


def _clip(values: Any, least: Any, most: Any) -> Any:
    if least is None:
        return np.minimum(values, most)
    if most is None:
        return np.maximum(values, least)
    return np.minimum(np.maximum(values, least), most)


def _sqrt(values: Any) -> Any:
    return np.sqrt(values)


def _write(values: np.ndarray, into: np.ndarray) -> None:
    """Assignment to a slice takes numba five seconds to compile, for the words of its error."""
    for n in range(len(into)):
        into[n] = values[n]


ARRAYS: dict[str, Any] = {name: Compiled(function) for name, function in (
    ("reduced", _reduced), ("spread", _spread), ("spread_inside", _spread_inside),
    ("maximum", _maximum), ("clip", _clip), ("sqrt", _sqrt), ("write", _write), ("lerp", numbers.lerp))}
"""By name, what the formulas call: compiled, for arrays; the formulas themselves too."""
ARRAYS["where"] = Compiled(_where, element)
_function: Any
for _function in (fading.long_mean, fading.new_peak, fading.is_faded, fading.unrisen, fading.floored,
                  fading.within, own_share, outputs_scale):
    ARRAYS[_function.__name__] = Compiled(_function, ARRAYS)


for _function in (row_lengths, limited, row_promises, found_rows):
    ARRAYS[_function.__name__] = Compiled(_function, ARRAYS)


class Formulas(NamedTuple):
    """For the numbers of a step: themselves, or compiled for arrays. segments: of its outputs."""

    row_lengths: Any
    limited: Any
    row_promises: Any
    segments: Any


def formulas(segments: Any) -> Formulas:
    """segments: a step's own (joined.py)."""
    if compiler() is not None and isinstance(segments.lengths, np.ndarray):
        return Formulas(ARRAYS["row_lengths"], ARRAYS["limited"], ARRAYS["row_promises"],
                        Layout(segments.places, segments.inside, segments.lengths))
    return Formulas(row_lengths, limited, row_promises, segments)
