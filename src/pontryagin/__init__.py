"""pontryagin: deep learning as optimal control, trained by Pontryagin's maximum principle.

[LCTE] in docstrings is Q. Li, L. Chen, C. Tai, W. E, "Maximum Principle Based Algorithms for Deep Learning",
JMLR 18 (165), 2018.

Every name is imported where it is first used: `import pontryagin` itself loads nothing, not even torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pontryagin import (
        affine,
        audit,
        continuous,
        diagnostics,
        distributed,
        export,
        hamiltonian,
        maximizer,
        optim,
        problem,
        trajectory,
        update,
    )
    from pontryagin.hamiltonian import Penalties, paper_penalties
    from pontryagin.maximizer import (
        LBFGS,
        ClosedForm,
        GaussNewton,
        GradientAscent,
        GridSearch,
        RowGaussNewton,
        SpectralGradient,
    )
    from pontryagin.problem import (
        L0,
        L1,
        Binary,
        Box,
        Codebook,
        ControlProblem,
        CrossEntropy,
        EntryBox,
        Finite,
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
        refine,
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
        PaperPenalty,
        PerStageEstimate,
        Secant,
    )

__version__ = "0.2.0"

__all__ = [
    "L0", "L1", "LBFGS", "MSA", "AcceptReject", "AsynchronousMSA", "Binary", "Box", "ClosedForm", "Codebook",
    "ControlProblem", "CrossEntropy", "EntryBox", "ExtendedMSA", "Finite", "Fixed", "FromEstimate",
    "GaussNewton", "GradientAscent",
    "GridSearch",
    "KSparse", "Momentum", "NonFiniteError", "NonNegative", "PaperPenalty", "Penalties", "PerStageEstimate",
    "ProblemError",
    "Quadratic", "RealSpace", "RowGaussNewton", "Secant", "SpectralGradient", "SquaredError", "Stage",
    "Ternary", "TwoFourSparse",
    "UnitNormRows", "__version__", "affine", "audit", "continuous", "diagnostics", "distributed", "euler",
    "export", "hamiltonian", "maximizer", "optim", "paper_penalties", "problem", "refine", "split_euler",
    "stage", "trajectory", "update",
]

_SOURCES = ("problem", "hamiltonian", "maximizer", "update")
"""Rooms that the other names of __all__ come from."""
_ROOMS = (*_SOURCES, "affine", "trajectory", "distributed", "optim", "diagnostics", "continuous", "audit",
          "export")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in __all__:
        for room in map(__getattr__, _SOURCES):
            if name in room.__all__:
                globals()[name] = found = getattr(room, name)
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
