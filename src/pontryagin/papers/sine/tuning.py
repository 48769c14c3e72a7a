"""Learning rates of the baselines, chosen on a grid."""

from dataclasses import dataclass
from math import inf, isfinite, log10
from typing import ClassVar

from pontryagin.papers.sine.methods import Method
from pontryagin.papers.sine.task import SineTask, Theta
from pontryagin.run.progress import Progress

TUNING_SEED = 1000


@dataclass(frozen=True)
class Tuning:
    """scores: the mean over a run of log10 of the train loss, by learning rate; infinite when it diverged."""

    RULE: ClassVar[str] = ("the rate with the least mean of log10(train loss) over a run of its own seed, "
                           "which rewards both falling early and ending low")
    scores: dict[float, float]

    @property
    def best(self) -> float:
        """The rate with the least score."""
        return min(self.scores, key=self.scores.__getitem__)


def tune(figure: str, method: Method, iterations: int, rates: tuple[float, ...],
         progress: Progress) -> Tuning:
    """One run of `iterations` at each rate, on data and controls that no reported run uses."""
    scores = {}
    with progress.task(f"({figure}) {method.label}: choosing the learning rate", len(rates)) as advance:
        for number, rate in enumerate(rates, 1):
            scores[rate] = _score(SineTask(figure, TUNING_SEED), method, iterations, rate)
            advance(number, None)
    return Tuning(scores)


def _score(task: SineTask, method: Method, iterations: int, rate: float) -> float:
    logs: list[float] = []

    def observe(theta: Theta, evaluations: int, record: object) -> bool:
        loss = task.loss(theta).item()
        logs.append(log10(max(loss, 1e-300)) if isfinite(loss) else inf)
        return isfinite(loss)

    method.run(task, iterations, rate, observe)
    return sum(logs) / len(logs)
