"""The explicit Euler method."""

from dataclasses import dataclass

from pontryagin.continuous.integrators.protocol import RightSide, States, Times


@dataclass(frozen=True)
class Euler:
    """y + h f(t, y); order 1, one evaluation a step: a residual network is its step."""

    def __call__(self, f: RightSide, t: Times, y: States, step: Times) -> States:
        return y + step * f(t, y)
