"""One step of dy/dt = f(t, y), one file a method."""

from pontryagin.continuous.integrators.adaptive import Adaptive
from pontryagin.continuous.integrators.euler import Euler
from pontryagin.continuous.integrators.implicit_midpoint import ImplicitMidpoint
from pontryagin.continuous.integrators.midpoint import Midpoint
from pontryagin.continuous.integrators.protocol import Integrator
from pontryagin.continuous.integrators.rk4 import RK4

__all__ = ["RK4", "Adaptive", "Euler", "ImplicitMidpoint", "Integrator", "Midpoint"]
