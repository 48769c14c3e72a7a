"""The affine stage z = W x + b, once: which modules compute one, its rows, moments, metric and argmax.

Everything that factorizes a moment is here and nowhere else. The explicit solver's closed form, EMSA and the
audit rest on it.
"""

# each registers the layers that it is about
from pontryagin.affine import attention, convolution, linear, normalization, recurrent  # noqa: F401
from pontryagin.affine.affine_map import AffineMap, dense, first_argument, turned
from pontryagin.affine.argmax import Change, argmax, output_change
from pontryagin.affine.finding import Candidates, certain_maps, maps_of
from pontryagin.affine.form import AffineForm, Layout, form_of, form_on
from pontryagin.affine.metric import (
           Diagonal,
           Factor,
           FactoredMoment,
           Scaled,
           damped_eigen,
           factorize,
           nystrom,
)
from pontryagin.affine.moments import IndexMoments, InputMoments, Moments
from pontryagin.affine.penalized_argmax import PenalizedArgmax
from pontryagin.affine.polar import polar_argmax
from pontryagin.affine.registry import is_certain, own_parameters, register
from pontryagin.affine.stage_moments import StageMoments, merge_moments, quadratic_forms, stage_moments
from pontryagin.affine.variances import MeanVariance, VarianceProbe

__all__ = ["AffineForm", "AffineMap", "Candidates", "Change", "Diagonal", "Factor", "FactoredMoment",
           "IndexMoments", "InputMoments",
           "Layout", "MeanVariance", "Moments", "PenalizedArgmax", "Scaled", "StageMoments", "VarianceProbe",
           "argmax",
           "certain_maps", "damped_eigen", "dense", "factorize", "first_argument", "form_of", "form_on",
           "is_certain",
           "maps_of", "merge_moments", "nystrom", "output_change", "own_parameters", "polar_argmax",
           "quadratic_forms", "register", "stage_moments", "turned"]
