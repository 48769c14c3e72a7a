"""The length of a step follows the size of its gradients, where these fade; and how far it may reach.

Steps are free of the gradient's scale: they are divided by a running root mean square of what they would be.
Where gradients fade, because a loss is fitted or a part of a network has fallen silent, that alone would keep
the steps at full length, along what is at last noise or the memory of a gradient. So a step is measured
against a longer memory too, the mean over about the last ninth of all steps: gradients may fall to a quarter
of it before the steps become shorter, which no noise of batches does.

Where a loss is fitted for good, gradients are at last the noise of rounding, of one size for ever, and that
mean is of noise as well. So there is a peak too, of the mean, which falls with the fourth root of the number
of steps and rises no faster than the mean may: gradients of less than 1e-3 of it shorten the steps, until
what they promise is worth nothing. And gradients that have faded to less than 1e-2 of it and rise again do
not
lengthen a step, as they would beside a mean that follows them: where a loss is all but 0 they rise because
the last step went too far.

A step is measured by what it does to the outputs. Where the inputs of a stage have all but vanished, as deep
in a network that its initialization starves, moving an output by 0.03 would take weights to 1e10 and more,
and all stages do so at once. So a matrix changes in a step by no more than REACH of itself, or of the size
1 / sqrt(inputs) that keeps variances, should it be smaller: signals that have vanished come back within some
steps, each seen by a probe.
"""

from math import frexp, ldexp

from pontryagin.optim.numbers import Numbers, clip, lerp, maximum, where

REACH = 0.3
"""Binds where inputs vary by less than about a tenth, at lr = 0.03."""
_WINDOW = 8.0
"""eta of the mean over about the last 1 / (eta + 1) of all steps, as that of the averages of the controls."""
_FALL = 0.25
"""What part of the longer mean's root the gradients may fall to at full length."""
_MILD = 1e-10, 1e10
"""Largest entries of gradients whose squares, and what is made of them, are float32 with room to spare."""
NOISE_LEVEL, NOISE_LEVEL_OF_MOMENTUM = 1e-3, 1e-4
"""What part of the peak's root the gradients may fall to at full length: those of a step by rows, and those
of one whose momentum comes before the argmax and averages noise by itself. Small norms, attention and
convolutions that are fitted in float32 stay so over 5,000 steps; with 1e-4 for all, rounding still moves some
of them; no healthy network of benchmarks.defaults comes near."""
_FADED = 1e-2
"""What part of the peak's root tells gradients that have faded from those of batches that differ."""
_SETTLED = 20
"""Steps after which the peak is remembered: before, the first gradients may be of any size."""
_LARGEST = 126
"""Exponent of a unit: its inverse is a float32 too."""


def long_mean(known: Numbers, square: Numbers, steps: int) -> Numbers:
    """The mean over about the last ninth of `steps` steps, this one included."""
    return lerp(known, square, (_WINDOW + 1) / (steps + _WINDOW))


def new_peak(known: Numbers, long: Numbers, steps: int) -> Numbers:
    """The largest longer mean, (group); a single step takes it no further than the mean's own weight of a
    step does, but where there was none."""
    if steps < _SETTLED:
        return long
    fallen, most = known * (1 - 0.5 / steps), known * (1 + 2 * (_WINDOW + 1) / steps)
    return where(known > 0, clip(long, fallen, most), long)


def is_faded(long: Numbers, peak: Numbers) -> Numbers:
    """Whether gradients have faded."""
    return long < _FADED**2 * peak


def unrisen(square: Numbers, now: Numbers, faded: Numbers) -> Numbers:
    """Where gradients have faded, the running mean square, but no less than that of this step."""
    return where(faded, maximum(square, now), square)


def floored(square: Numbers, long: Numbers, peak: Numbers | None = None, level: float = NOISE_LEVEL
            ) -> Numbers:
    """The running mean square that a step is divided by the root of: no less than so much of the longer mean,
    and of the peak."""
    found = maximum(square, _FALL**2 * long)
    return found if peak is None else maximum(found, level**2 * peak)


def reach(norms: Numbers, outputs: int | Numbers) -> Numbers:
    """The largest norm that the change of a matrix of this norm and so many outputs may have; (group)."""
    return REACH * clip(norms, outputs**0.5, None)


def within(norm: Numbers, limit: Numbers) -> Numbers:
    """What a step of this norm is multiplied by: 1, less where it goes further than the limit; (group)."""
    return clip(limit / norm, None, 1)


def is_mild(largest: float) -> bool:
    """Whether a gradient can be squared as it is."""
    return largest == 0 or _MILD[0] < largest < _MILD[1]


def unit(largest: float) -> float:
    """The power of two next above the largest entry of a gradient, 1 for zero: dividing by it is exact, and
    squares of what is left stay in range."""
    exponent = frexp(largest)[1]
    return ldexp(1.0, max(-_LARGEST, min(exponent, _LARGEST))) if largest > 0 else 1.0
