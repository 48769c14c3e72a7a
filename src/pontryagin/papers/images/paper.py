"""What [LCTE] shows in Figures 2 to 4, read off the plots, and what its experiments are."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """number: in the paper. values: by the paper's method, train_loss and test_accuracy after 10 epochs,
    first_accuracy after one; those that can be read. epochs, evaluations: of our run by default (evaluations
    None: one an epoch, at least ten)."""

    number: int
    title: str
    dataset: str
    values: dict[str, dict[str, float]]
    epochs: int = 10
    evaluations: int | None = None

    def plain(self) -> dict[str, Any]:
        """For summary.json: by figure and method, with loss (train_loss) and iteration (None: not told) as
        for the sine."""
        iteration = None if self.number == 3 else 5500
        return {f"Figure {self.number}": {method: {"loss": own.get("train_loss"), "iteration": iteration,
                                                   **own}
                                          for method, own in self.values.items()}}


FIGURES = {
    "mnist": Figure(2, "Figure 2: MNIST", "mnist", {
        "emsa": {"train_loss": 0.11, "test_accuracy": 0.987, "first_accuracy": 0.96},
        "adam": {"train_loss": 0.12, "test_accuracy": 0.98, "first_accuracy": 0.945},
        "adagrad": {"train_loss": 0.38, "test_accuracy": 0.973},
        "sgd": {"train_loss": 0.42, "test_accuracy": 0.968}}),
    "fashion-mnist": Figure(4, "Figure 4: Fashion-MNIST", "fashion-mnist", {
        "emsa": {"test_accuracy": 0.88}, "adam": {"test_accuracy": 0.875},
        "adagrad": {"test_accuracy": 0.855},
        "sgd": {"test_accuracy": 0.855}}),
    "wall-clock": Figure(3, "Figure 3 turned round: seconds to a goal, MNIST", "mnist", {
        "emsa": {"train_loss": 0.65}, "adam": {"train_loss": 0.12}}, epochs=2, evaluations=44),
}
"""Of wall-clock the values are train losses after 35 s on the paper's CPU."""

OURS = {"emsa-paper": "emsa", "emsa": "emsa", "adam": "adam", "adagrad": "adagrad", "sgd": "sgd"}
"""Which method of the paper stands beside one of ours."""
