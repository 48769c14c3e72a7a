"""Control problems in continuous time: meshes, integrators, constraints, the residual over t."""

from pontryagin.continuous.controls import PiecewiseConstant, PiecewiseLinear
from pontryagin.continuous.discretization import Discretization, uniform
from pontryagin.continuous.integrators import (
    RK4,
    Adaptive,
    Euler,
    ImplicitMidpoint,
    Integrator,
    Midpoint,
)
from pontryagin.continuous.multipliers import Multipliers
from pontryagin.continuous.problem import ContinuousProblem, FreeTime
from pontryagin.continuous.residual import Residual, residual
from pontryagin.continuous.solution import Solution, solve

__all__ = ["RK4", "Adaptive", "ContinuousProblem", "Discretization", "Euler", "FreeTime", "ImplicitMidpoint",
           "Integrator", "Midpoint", "Multipliers", "PiecewiseConstant", "PiecewiseLinear", "Residual",
           "Solution", "residual", "solve", "uniform"]
