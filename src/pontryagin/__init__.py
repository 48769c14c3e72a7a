"""pontryagin: deep learning as optimal control, trained by Pontryagin's maximum principle.

[LCTE] in docstrings is Q. Li, L. Chen, C. Tai, W. E, "Maximum Principle Based Algorithms for Deep Learning",
JMLR 18 (165), 2018.
"""

from pontryagin import hamiltonian, maximizer, optim, problem, trajectory, update
from pontryagin.hamiltonian import Penalties, paper_penalties
from pontryagin.maximizer import LBFGS, ClosedForm, GaussNewton, GradientAscent, RowGaussNewton
from pontryagin.problem import (
    L0,
    L1,
    Binary,
    Box,
    Codebook,
    ControlProblem,
    CrossEntropy,
    KSparse,
    NonFiniteError,
    NonNegative,
    ProblemError,
    Quadratic,
    RealSpace,
    SquaredError,
    Stage,
    Ternary,
    TwoFourSparse,
    UnitNormRows,
    euler,
    split_euler,
    stage,
)
from pontryagin.update import (
    MSA,
    AcceptReject,
    AsynchronousMSA,
    ExtendedMSA,
    Fixed,
    FromEstimate,
    Momentum,
    PerStageEstimate,
    Secant,
)

__version__ = "0.1.0"

__all__ = [
    "L0", "L1", "LBFGS", "MSA", "AcceptReject", "AsynchronousMSA", "Binary", "Box", "ClosedForm", "Codebook",
    "ControlProblem",
    "CrossEntropy", "ExtendedMSA", "Fixed", "FromEstimate", "GaussNewton", "GradientAscent", "KSparse",
    "Momentum",
    "NonFiniteError", "NonNegative", "Penalties", "PerStageEstimate", "ProblemError", "Quadratic",
    "RealSpace",
    "RowGaussNewton", "Secant", "SquaredError", "Stage", "Ternary", "TwoFourSparse", "UnitNormRows",
    "__version__",
    "euler", "hamiltonian", "maximizer", "optim", "paper_penalties", "problem", "split_euler", "stage",
    "trajectory",
    "update",
]
