"""What Li and Hao (ICML 2018) ran on MNIST, and what they printed."""

from dataclasses import dataclass

from pontryagin.run.errors import ExperimentError


@dataclass(frozen=True)
class Printed:
    """objective: by name; errors: test error in per cent after epochs; density: share of weights after
    epochs.

    The errors and the shares are those of the authors' released notebooks, whose last epoch is the
    paper's."""

    objective: str
    errors: dict[int, float]
    density: dict[int, float]


EPOCHS, BATCH, WIDTH = 250, 100, 2048
_BINARY = (4.80, 3.52, 3.01, 2.37, 2.71, 2.64, 2.72, 2.67, 2.22, 2.19)
_TERNARY = (2.69, 2.26, 2.58, 2.14, 2.12, 2.23, 2.21, 2.16, 2.10, 1.83)
_NONZERO = (0.857, 0.797, 0.678, 0.509, 0.286, 0.109, 0.0936, 0.0919, 0.0917, 0.0917)
"""After each of the first ten epochs."""
PAPER = {
    "binary": Printed("squared-hinge", {**dict(enumerate(_BINARY, 1)), 50: 1.48, 100: 1.15, 250: 1.21},
                      dict.fromkeys((*range(1, 11), 50, 100, 250), 1.0)),
    "ternary": Printed("cross-entropy", {**dict(enumerate(_TERNARY, 1)), 50: 1.30, 100: 1.23, 250: 1.17},
                       {**dict(enumerate(_NONZERO, 1)), 250: 0.018}),
}


def printed(kind: str) -> Printed:
    """One of PAPER. Raises ExperimentError."""
    if kind not in PAPER:
        raise ExperimentError(f"unknown experiment {kind!r}: expected {', '.join(PAPER)}")
    return PAPER[kind]
