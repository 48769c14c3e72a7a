"""How many rows a step sees for each input or output of its matrix, and what they are worth.

A_c is known from seven batches and more; the gradient of a step is of one. With few rows it is mostly noise,
which exponent 1/2 whitens. With many the gradient is signal, and the argmax of the augmented Hamiltonian,
exponent 1, is best. (Below one row 1/4 is better yet for classes, and worse for what has many outputs.)

Small singular values are signal only then too: a layer of whole vectors takes the polar step from two rows
for each input and output on, where that costs no more than half again of what its passes do. (With one row it
served deep networks of 64 units per iteration, and not by the clock.)
"""

_POLAR = 2.0
"""Rows, relative to the larger of inputs and outputs."""
_SIGNAL, _SHARED_SIGNAL = 8.0, 1.0
"""Rows from which the exponent is 1: of layers of whole vectors, and of those whose rows are patches, steps
of time or heads, of which there are many for each sample."""
_OF_SEQUENCES = 4.0
"""As how many the rows of sequences count at most: those of a sample are alike, so that the noise is of
samples. (With exponent 1 transformers end a tenth to a half higher; functions of coordinates ten times
lower.)"""


def worth(rows: float, of_sample: float) -> float:
    """What rows, over the larger of inputs and outputs, count as. of_sample: how many a sample has."""
    return min(rows, _OF_SEQUENCES) if of_sample > 1 else rows


def is_polar(rows: float, is_dense: bool) -> bool:
    """Whether the step is bounded in the operator norm. rows: what those of the first batch, over the larger
    of inputs and outputs, count as; is_dense: whether the layer sees whole vectors."""
    return is_dense and rows >= _POLAR


def exponent_for(rows: float, is_dense: bool) -> float:
    """Of the metric (A_c + delta I)^exponent: 1/2 or 1."""
    return 1.0 if rows >= (_SIGNAL if is_dense else _SHARED_SIGNAL) else 0.5
