"""What is tuned of a method on a network, and in which order: the rate, then the decay, then the warm-up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pontryagin.run.tuning import best

CENTERS = {"emsa": -3, "adamw": -5, "muon": -3, "soap": -5, "schedule-free": -5, "shampoo": -4}
"""The middle of each grid of rates, as `rate_at` numbers them: AdamW's at 0.003."""
REACH, MORE = 2, 4
"""Rates on each side of the middle, and how many more an edge may be moved by."""
DECAYS, WARMUPS = (0.1, 1.0), (0.05, 0.2)
"""Tried beside 0."""
STAGES = ("rate", "decay", "warm-up")


@dataclass(frozen=True)
class Choice:
    """What is tuned. warmup: a share of the run."""

    rate: float
    decay: float = 0.0
    warmup: float = 0.0


Score = Callable[[Choice], float]
"""The end loss of a run on the tuning's seed, infinite for one that failed."""


def rate_at(number: int) -> float:
    """..., 0.003, 0.01, 0.03, ...: the numbers -5, -4, -3."""
    return float(f"{3 if number % 2 else 1}e{number // 2}")


def tune(method: str, stages: Sequence[str], score: Score) -> Choice:
    """The best choice. Each stage keeps what the ones before it found. EMSA has its rate alone tuned."""
    chosen = Choice(rate_at(_rate(CENTERS[method], lambda number: score(Choice(rate_at(number))))))
    if method == "emsa":
        return chosen
    if "decay" in stages:
        chosen = _better([chosen, *(replace(chosen, decay=decay) for decay in DECAYS)], score)
    if "warm-up" in stages:
        chosen = _better([chosen, *(replace(chosen, warmup=warmup) for warmup in WARMUPS)], score)
    return chosen


def _rate(center: int, score: Callable[[int], float]) -> int:
    """The best number of a grid that is extended while its best is at an edge; the least of equal ones, so
    that a grid on which all fail grows downwards."""
    found = {number: score(number) for number in range(center - REACH, center + REACH + 1)}
    for _ in range(MORE):
        number = best(dict(sorted(found.items())))
        if min(found) < number < max(found):
            break
        beyond = number - 1 if number == min(found) else number + 1
        found[beyond] = score(beyond)
    return best(dict(sorted(found.items())))


def _better(choices: Sequence[Choice], score: Score) -> Choice:
    return best({choice: score(choice) for choice in choices})
