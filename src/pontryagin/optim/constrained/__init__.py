"""Parameters of a module that lie in admissible sets."""

from pontryagin.optim.constrained.constraints import Constraints

__all__ = ["Constraints"]
