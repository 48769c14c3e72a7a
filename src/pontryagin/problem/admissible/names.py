"""Admissible sets by name: a name means the same set wherever one is asked for, in training and in audits."""

from collections.abc import Mapping

from pontryagin.problem.admissible.discrete import Binary, Codebook, Ternary
from pontryagin.problem.admissible.sets import MatrixSet, NonNegative
from pontryagin.problem.admissible.sparse import KSparse, TwoFourSparse

NAMED: Mapping[str, MatrixSet] = {
    "binary": Binary(), "ternary": Ternary(), "binary-rows": Binary(scale="row"),
    "ternary-rows": Ternary(scale="row"),
    "int3": Codebook(3), "int4": Codebook(4), "int8": Codebook(8), "2:4": TwoFourSparse(),
    "50%": KSparse(share=0.5), "non-negative": NonNegative(),
}
"""{-1, 1}, {-1, 0, 1}; with a scale per output row {-a, a}, {-a, 0, a} and signed integers of so many bits;
two of four input channels, or half of each row, non-zero; entries >= 0."""
_SPELLINGS = {"3-bit": "int3", "4-bit": "int4", "8-bit": "int8", "2:4-sparse": "2:4"}


def set_name(name: str) -> str:
    """The name that NAMED has, of a name in either spelling."""
    return _SPELLINGS.get(name, name)
