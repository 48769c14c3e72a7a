"""Admissible sets Theta: the values that a control may take. One file a set."""

from pontryagin.problem.admissible.binary import Binary
from pontryagin.problem.admissible.box import Box
from pontryagin.problem.admissible.codebook import Codebook
from pontryagin.problem.admissible.discrete import DiscreteSet
from pontryagin.problem.admissible.grid import Grid, Scale
from pontryagin.problem.admissible.interval import Interval
from pontryagin.problem.admissible.k_sparse import KSparse
from pontryagin.problem.admissible.non_negative import NonNegative
from pontryagin.problem.admissible.per_parameter import Admissible, PerParameter, admissible_set
from pontryagin.problem.admissible.protocol import AdmissibleSet, MatrixSet
from pontryagin.problem.admissible.real_space import RealSpace
from pontryagin.problem.admissible.rows import Rows, rows_by_name, rows_of
from pontryagin.problem.admissible.sparse import SparseSet
from pontryagin.problem.admissible.ternary import Ternary
from pontryagin.problem.admissible.two_four_sparse import TwoFourSparse
from pontryagin.problem.admissible.unit_norm_rows import UnitNormRows

__all__ = [
    "Admissible", "AdmissibleSet", "Binary", "Box", "Codebook", "DiscreteSet", "Grid", "Interval", "KSparse",
    "MatrixSet",
    "NonNegative", "PerParameter", "RealSpace", "Rows", "Scale", "SparseSet", "Ternary", "TwoFourSparse",
    "UnitNormRows",
    "admissible_set", "rows_by_name", "rows_of",
]
