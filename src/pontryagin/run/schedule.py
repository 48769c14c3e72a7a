"""How the learning rate falls over a run: a factor of the initial rate for every iteration."""

from collections.abc import Callable
from math import cos, pi

SCHEDULES: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + cos(pi * done)) / 2,
    "constant": lambda done: 1.0,
}
"""By name: the factor when the share `done` in [0, 1) of the iterations has been run."""
