"""The unit of the last stage: how far its outputs may go in a step, where targets are of any size.

Steps are in units of a stage's outputs, which are about 1, but those of the last stage are to be targets:
targets of a thousand are a thousand units away. So the unit of that stage, 1 at first, grows while its
gradients go on pointing where its momentum goes, and falls when they do not:

    u <- u exp((clip(<G, v> / <G, d>, -1, 1) - 0.1) / 2),   1 <= u <= max(1, J / (2 <G, d>)),

the bound being half of Polyak's length, at which a loss that is convex in the outputs keeps its promise.
(A network with targets times 1000 ended at 29 times its rival's loss without.) It grows from where it is, so
that a single large J is no leap.

G: the gradient of the stage in this step, d: the direction made of it at unit length, v: the mean of those
before, J: what is left of the loss. The last stage is that whose module is called last in a pass.
"""

from math import exp

_POLYAK, _GROWTH, _CHANCE = 0.5, 0.5, 0.1
"""How much of its promise the last stage is to keep; by what its unit grows, a logarithm, where gradients
agree by more than chance."""
_FARTHEST = 20.0
"""Of the logarithm of a unit."""


def grown(growth: float, own: float, along: float) -> float:
    """The logarithm of u after a step, without the bound of J. growth: before it; own, along: <G, d> and <G,
    v>."""
    agreement = max(-1.0, min(along / own, 1.0)) if own > 0 else 0.0
    return min(max(growth + _GROWTH * (agreement - _CHANCE), 0.0), _FARTHEST)


def unit(left: float, own: float, growth: float) -> float:
    """u. left: of J; own: <G, d>, a running mean."""
    return max(1.0, min(_POLYAK * left / own, exp(growth))) if own > 0 else 1.0
