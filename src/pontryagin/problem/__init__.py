"""What is solved: stages, costs, admissible sets, and continuous dynamics as stages."""

from pontryagin.errors import NoMaximumError, NonFiniteError, ProblemError
from pontryagin.problem.admissible import (
    AdmissibleSet,
    Binary,
    Box,
    Codebook,
    DiscreteSet,
    EntryBox,
    Finite,
    Interval,
    KSparse,
    MatrixSet,
    NonNegative,
    PerParameter,
    RealSpace,
    SparseSet,
    Ternary,
    TwoFourSparse,
    UnitNormRows,
)
from pontryagin.problem.control_problem import ControlProblem, Controls
from pontryagin.problem.discretization import euler, split_euler
from pontryagin.problem.refinement import refine
from pontryagin.problem.running_cost import L0, L1, NoCost, Quadratic, RunningCost
from pontryagin.problem.stage import Stage, stage
from pontryagin.problem.terminal_cost import CrossEntropy, SquaredError, TerminalCost

__all__ = ["L0", "L1", "AdmissibleSet", "Binary", "Box", "Codebook", "ControlProblem", "Controls",
           "CrossEntropy", "DiscreteSet", "EntryBox", "Finite", "Interval", "KSparse", "MatrixSet", "NoCost",
           "NoMaximumError", "NonFiniteError", "NonNegative", "PerParameter", "ProblemError", "Quadratic",
           "RealSpace", "RunningCost", "SparseSet", "SquaredError", "Stage", "TerminalCost", "Ternary",
           "TwoFourSparse", "UnitNormRows", "euler", "refine", "split_euler", "stage"]
