"""Admissible sets Theta: the values that a control may take."""

from pontryagin.problem.admissible.discrete import Binary, Codebook, DiscreteSet, Ternary
from pontryagin.problem.admissible.entry_box import EntryBox
from pontryagin.problem.admissible.finite import Finite
from pontryagin.problem.admissible.grid import Grid, Scale, best_scale, short_scale
from pontryagin.problem.admissible.per_parameter import Admissible, Layout, PerParameter, admissible_set
from pontryagin.problem.admissible.rows import Rows, rows_by_name, rows_of
from pontryagin.problem.admissible.sets import (
    AdmissibleSet,
    Box,
    Interval,
    MatrixSet,
    NonNegative,
    RealSpace,
    UnitNormRows,
)
from pontryagin.problem.admissible.sparse import KSparse, SparseSet, TwoFourSparse

__all__ = ["Admissible", "AdmissibleSet", "Binary", "Box", "Codebook", "DiscreteSet", "EntryBox", "Finite",
           "Grid",
           "Interval", "KSparse", "Layout", "MatrixSet", "NonNegative", "PerParameter", "RealSpace", "Rows",
           "Scale", "SparseSet", "Ternary", "TwoFourSparse", "UnitNormRows", "admissible_set", "best_scale",
           "rows_by_name", "rows_of", "short_scale"]
