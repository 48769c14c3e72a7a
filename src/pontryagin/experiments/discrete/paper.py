"""What Li and Hao (ICML 2018) ran on MNIST, and what they printed."""

from dataclasses import dataclass

from pontryagin.experiments.errors import ExperimentError


@dataclass(frozen=True)
class Printed:
    """objective: by name; errors: test error in per cent after epochs; nonzero: share of weights after epochs.

    The errors and the shares are those of the authors' released notebooks, whose last epoch is the paper's."""

    objective: str
    errors: dict[int, float]
    nonzero: dict[int, float]


EPOCHS, BATCH, WIDTH = 250, 100, 2048
PAPER = {
    "binary": Printed("squared-hinge", {1: 4.80, 10: 2.19, 50: 1.48, 100: 1.15, 250: 1.21},
                      dict.fromkeys((1, 10, 50, 100, 250), 1.0)),
    "ternary": Printed("cross-entropy", {1: 2.69, 10: 1.83, 50: 1.30, 100: 1.23, 250: 1.17}, {1: 0.857, 10: 0.0917, 250: 0.018}),
}


def printed(kind: str) -> Printed:
    """One of PAPER. Raises ExperimentError."""
    if kind not in PAPER:
        raise ExperimentError(f"unknown experiment {kind!r}: expected {', '.join(PAPER)}")
    return PAPER[kind]
