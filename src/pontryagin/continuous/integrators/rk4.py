"""The classical Runge-Kutta method."""

from dataclasses import dataclass

from pontryagin.continuous.integrators.protocol import RightSide, States, Times


@dataclass(frozen=True)
class RK4:
    """The classical method of Kutta (1901); order 4, four evaluations a step."""

    def __call__(self, f: RightSide, t: Times, y: States, step: Times) -> States:
        half = 0.5 * step
        middle, end = t + half, t + step
        first = f(t, y)
        second = f(middle, y + half * first)
        third = f(middle, y + half * second)
        last = f(end, y + step * third)
        return y + (step / 6) * (first + 2 * (second + third) + last)
