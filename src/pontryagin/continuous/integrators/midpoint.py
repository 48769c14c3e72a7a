"""The explicit midpoint method."""

from dataclasses import dataclass

from pontryagin.continuous.integrators.protocol import RightSide, States, Times


@dataclass(frozen=True)
class Midpoint:
    """y + h f(t + h/2, y + h/2 f(t, y)); order 2, two evaluations a step."""

    def __call__(self, f: RightSide, t: Times, y: States, step: Times) -> States:
        half = 0.5 * step
        return y + step * f(t + half, y + half * f(t, y))
