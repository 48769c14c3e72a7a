"""How many rows a step sees for each input or output of its matrix, and what they are worth.

A_c is known from seven batches and more; the gradient of a step is of one. With few rows of them it is mostly
noise, of which the inverse of A_c makes most along the inputs that vary least; and where momentum averages it
before an argmax that treats all singular directions alike, little of the metric is best. With many rows the
gradient is signal, and the argmax of the augmented Hamiltonian, exponent 1, is the best there is. A layer of
whole vectors takes the polar step from one row for each input and output on. Measured on the networks of
`bench panel`, docs/optimizer.md.
"""

_POLAR = 1.0
"""Rows, relative to the larger of inputs and outputs, from which small singular values are signal."""
_EXPONENTS = (2.2, 0.25), (8.0, 0.5)
"""Of layers of whole vectors, below so many rows; 1 beyond."""
_SHARED = (1.0, 0.25),
"""Of those whose rows are patches, steps of time or heads: there are many of them for each sample."""


_DOUBT = 2.0
"""Times the promise of a polar step of few rows counts: the smallest of its singular directions, as long as
the largest, are noise. With 1 twenty plain layers do not learn; with 2 for all, wide ones are slower."""


def is_polar(rows: float, is_dense: bool) -> bool:
    """Whether the step is bounded in the operator norm. rows: of the first batch, over the larger of inputs
    and outputs; is_dense: whether the layer sees whole vectors."""
    return is_dense and rows >= _POLAR


def exponent_for(rows: float, is_dense: bool) -> float:
    """Of the metric (A_c + delta I)^exponent: 1/4, 1/2 or 1."""
    return next((exponent for most, exponent in (_EXPONENTS if is_dense else _SHARED) if rows < most), 1.0)


def doubt(rows: float) -> float:
    """How often the promise of a polar step counts (promise.py)."""
    return _DOUBT if rows < _EXPONENTS[0][0] else 1.0
