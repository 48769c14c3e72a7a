"""How many rows a step sees for each input or output of its matrix, and what they are worth.

A_c is known from seven batches and more; the gradient of a step is of one. With few rows it is mostly noise,
of which the inverse of A_c makes most along the inputs that vary least. With many the gradient is signal, and
the argmax of the augmented Hamiltonian, exponent 1, is best. Small singular values are signal only then too:
a layer of whole vectors takes the polar step from two rows for each input and output on, where that costs no
more than half again of what its passes do. (With one row it served deep networks of 64 units per iteration,
and not by the clock.)
"""

_POLAR = 2.0
"""Rows, relative to the larger of inputs and outputs."""
_EXPONENTS = (1.0, 0.25), (8.0, 0.5)
"""Of layers of whole vectors, below so many rows; 1 beyond."""
_SHARED = (1.0, 0.25),
"""Of those whose rows are patches, steps of time or heads: there are many of them for each sample."""


def is_polar(rows: float, is_dense: bool) -> bool:
    """Whether the step is bounded in the operator norm. rows: of the first batch, over the larger of inputs
    and outputs; is_dense: whether the layer sees whole vectors."""
    return is_dense and rows >= _POLAR


def exponent_for(rows: float, is_dense: bool) -> float:
    """Of the metric (A_c + delta I)^exponent: 1/4, 1/2 or 1."""
    return next((exponent for most, exponent in (_EXPONENTS if is_dense else _SHARED) if rows < most), 1.0)
