"""What is solved: stages, costs, admissible sets, and continuous dynamics as stages."""

from pontryagin.problem.admissible import AdmissibleSet, RealSpace
from pontryagin.problem.affine import AffineForm
from pontryagin.problem.control_problem import ControlProblem, Controls
from pontryagin.problem.discretization import euler, split_euler
from pontryagin.problem.errors import NonFiniteError, ProblemError
from pontryagin.problem.running_cost import NoCost, Quadratic, RunningCost
from pontryagin.problem.stage import Stage, stage
from pontryagin.problem.terminal_cost import CrossEntropy, SquaredError, TerminalCost

__all__ = [
    "AdmissibleSet", "AffineForm", "ControlProblem", "Controls", "CrossEntropy", "NoCost", "NonFiniteError",
    "ProblemError", "Quadratic", "RealSpace", "RunningCost", "SquaredError", "Stage", "TerminalCost", "euler",
    "split_euler", "stage",
]
