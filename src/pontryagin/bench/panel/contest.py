"""EMSA and its tuned rivals on one network: which runs that takes, and what follows from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from pontryagin.bench.panel.network import Network
from pontryagin.bench.panel.ratio import SHARES, Curve, Ratio, sooner
from pontryagin.bench.panel.trial import Outcome, Trial
from pontryagin.bench.panel.tuning import Choice, tune
from pontryagin.bench.racers import METHODS
from pontryagin.run.tuning import TUNING_SEED

RIVALS = ("adamw", "muon", "soap", "schedule-free")
OURS = ("emsa", "emsa-tuned")
LONGER = 1.3
"""How many times as long EMSA is run once more where it has not come to the best rival's end loss."""

Ask = Callable[[Trial], Outcome]
"""The outcome of a trial: known, or run now."""


@dataclass(frozen=True)
class Protocol:
    """How a contest is held. seconds: of a run; stages: of the tuning."""

    rivals: Sequence[str]
    seconds: float
    seeds: tuple[int, ...]
    stages: Sequence[str]


@dataclass(frozen=True)
class Contest:
    """By method: what was chosen, and a run of each seed. longer: EMSA's longer runs, None where there was
    no need. tuning: end losses by rate on the tuning's seed."""

    choices: Mapping[str, Choice]
    runs: Mapping[str, Sequence[Outcome]]
    longer: Mapping[str, Sequence[Outcome | None]]
    tuning: Mapping[str, Mapping[float, float]]

    @property
    def best_rival(self) -> str:
        """With the least median end loss."""
        return min((name for name in self.runs if name not in OURS), key=self.end)

    def end(self, name: str) -> float:
        """The median end loss."""
        return median(run.loss for run in self.runs[name])


def trial(network: Network, seconds: float, method: str, seed: int, choice: Choice,
          longer: float = 1.0) -> Trial:
    """A run of these seconds."""
    iterations = round(longer * network.iterations(method, seconds))
    return Trial(network.name, method, seed, choice.rate, choice.decay, choice.warmup, iterations)


def default() -> Choice:
    """EMSA as it comes."""
    return Choice(METHODS["emsa"].rates[0])


def hold(network: Network, protocol: Protocol, ask: Ask) -> Contest:
    """All runs that there are to be."""
    choices, runs, tuning = {"emsa": default()}, {}, {}
    for name in (*protocol.rivals, "emsa-tuned"):
        method = name.removesuffix("-tuned")
        scores: dict[Choice, float] = {}

        def score(choice: Choice, method: str = method, scores: dict[Choice, float] = scores) -> float:
            if choice not in scores:
                scores[choice] = ask(trial(network, protocol.seconds, method, TUNING_SEED, choice)).loss
            return scores[choice]

        choices[name] = tune(method, protocol.stages, score)
        tuning[name] = {choice.rate: loss for choice, loss in scores.items()
                        if not choice.decay and not choice.warmup}
    for name, choice in choices.items():
        make = partial(trial, network, protocol.seconds, name.removesuffix("-tuned"), choice=choice)
        runs[name] = [ask(make(seed=seed)) for seed in protocol.seeds]
    held = Contest(choices, runs, {}, tuning)
    longer = {name: [ask(trial(network, protocol.seconds, "emsa", seed, choices[name], LONGER))
                     if _behind(own, rival) else None
                     for seed, (own, rival) in enumerate(zip(runs[name], runs[held.best_rival], strict=True))]
              for name in OURS}
    return Contest(choices, runs, longer, tuning)


def _behind(own: Outcome, rival: Outcome) -> bool:
    """Whether it has not come to the rival's end loss."""
    found = curve(own)
    return found is not None and rival.loss < float("inf") and found.time_to(rival.loss) is None


def curve(run: Outcome | None) -> Curve | None:
    """With times in units of the yardstick; None for a run that failed."""
    if run is None or run.ended != "complete":
        return None
    iterations, seconds, losses = zip(*run.points, strict=True)
    return Curve(iterations, [each / run.yardstick for each in seconds], losses)


def summarize(contest: Contest) -> dict[str, Any]:
    """What summary.json says of a network. Ratios are a seed each, a rival's time over EMSA's."""
    rival = contest.best_rival
    results: dict[str, Any] = {
        "best_rival": rival,
        "choices": {name: vars(choice) for name, choice in contest.choices.items()},
        "end_loss": {name: [run.loss for run in runs] for name, runs in contest.runs.items()},
        "failed": {name: [run.ended for run in runs if run.ended != "complete"]
                   for name, runs in contest.runs.items()},
        "cost": {name: _cost(runs) for name, runs in contest.runs.items()},
        "tuning": contest.tuning}
    for name in OURS:
        found = {share: ratios(contest, name, rival, at) for share, at in SHARES.items()}
        results[name] = {share: [{"value": one.value, "bound": one.bound} for one in each]
                         for share, each in found.items()}
        results[name]["least_of_rivals"] = min(
            middle(ratios(contest, name, other, 1.0)).value for other in contest.runs if other not in OURS)
        results[name]["loss_at_equal_seconds"] = [
            _loss_at_end(own, other)
            for own, other in zip(contest.runs[name], contest.runs[rival], strict=True)]
    return results


def ratios(contest: Contest, name: str, rival: str, share: float) -> list[Ratio]:
    """Of each seed. A rival that failed is not sooner anywhere: its ratio is without bound."""
    found = []
    for own, longer, other in zip(contest.runs[name], contest.longer[name], contest.runs[rival], strict=True):
        theirs = curve(other)
        found.append(Ratio(float("inf")) if theirs is None else
                     sooner(curve(own), theirs, share, curve(longer)))
    return found


def middle(found: Sequence[Ratio]) -> Ratio:
    """The median; a bound where it is one."""
    ordered = sorted(found, key=lambda one: one.value)
    if len(ordered) % 2:
        return ordered[len(ordered) // 2]
    low, high = ordered[len(ordered) // 2 - 1:len(ordered) // 2 + 1]
    return Ratio((low.value + high.value) / 2, low.bound or high.bound)


def _cost(runs: Sequence[Outcome]) -> float:
    """Seconds of an iteration beside AdamW's, refreshes and all."""
    return median(run.seconds / max(1, run.points[-1][0]) / run.yardstick for run in runs)


def _loss_at_end(own: Outcome, other: Outcome) -> float | None:
    """EMSA's loss over the rival's when the rival's run ends; None beside a loss of 0."""
    mine, theirs = curve(own), curve(other)
    if mine is None or theirs is None or theirs.losses[-1] <= 0:
        return None
    return mine.loss_at(theirs.times[-1]) / theirs.losses[-1]
