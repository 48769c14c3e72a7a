"""The argmax of the augmented Hamiltonian, one file a method."""

from pontryagin.maximizer.by_form import ByForm
from pontryagin.maximizer.closed_form import ClosedForm
from pontryagin.maximizer.coordinate_ascent import CoordinateAscent
from pontryagin.maximizer.elementwise import Elementwise
from pontryagin.maximizer.gauss_newton import GaussNewton, RowGaussNewton
from pontryagin.maximizer.gradient_ascent import GradientAscent
from pontryagin.maximizer.grid_search import GridSearch
from pontryagin.maximizer.lbfgs import LBFGS
from pontryagin.maximizer.majorized_ascent import MajorizedAscent
from pontryagin.maximizer.protocol import HamiltonianModel, Maximizer, MomentMaximizer, QuadraticModel
from pontryagin.maximizer.spectral_gradient import SpectralGradient
from pontryagin.maximizer.stage_by_stage import StageByStage

__all__ = ["LBFGS", "ByForm", "ClosedForm", "CoordinateAscent", "Elementwise", "GaussNewton",
           "GradientAscent", "GridSearch", "HamiltonianModel", "MajorizedAscent", "Maximizer",
           "MomentMaximizer",
           "QuadraticModel", "RowGaussNewton", "SpectralGradient", "StageByStage"]
