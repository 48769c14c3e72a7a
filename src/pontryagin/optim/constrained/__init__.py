"""Parameters of a module that lie in admissible sets."""

from pontryagin.optim.constrained.constraints import Constraints
from pontryagin.optim.constrained.names import ModelSets

__all__ = ["Constraints", "ModelSets"]
