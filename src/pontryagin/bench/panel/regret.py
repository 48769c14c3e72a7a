"""What EMSA's default rate costs: iterations beside the best of a few rates."""

from collections.abc import Mapping, Sequence
from typing import Any

from pontryagin.bench.panel.contest import Ask, curve, default, trial
from pontryagin.bench.panel.network import Network
from pontryagin.bench.panel.trial import Outcome
from pontryagin.bench.panel.tuning import Choice
from pontryagin.run.tuning import TUNING_SEED

RATES = (0.003, 0.01, 0.03, 0.06, 0.1)
COLUMNS = ("network", "regret", "best_rate", "default_loss", "best_loss")


def hold(network: Network, seconds: float, ask: Ask, rates: Sequence[float] = RATES) -> dict[float, Outcome]:
    """A run of each rate and of the default, on the seed of the tuning, whose runs these are too."""
    return {rate: ask(trial(network, seconds, "emsa", TUNING_SEED, Choice(rate)))
            for rate in sorted({*rates, default().rate})}


def summarize(runs: Mapping[float, Outcome]) -> dict[str, Any]:
    """regret: the iterations of the run at the default rate over those that the soonest rate needs to its end
    loss; infinite if it failed. Rates fall linearly to 0 over equal iterations, so that a regret of r is at
    least r of a schedule that is as long as it needs to be."""
    own = runs[default().rate]
    needed = {rate: found for rate, run in runs.items() if (found := _iterations_to(run, own.loss))}
    soonest = min(needed, key=needed.__getitem__, default=default().rate)
    failed = own.ended != "complete"
    return {"regret": float("inf") if failed else own.points[-1][0] / needed[soonest], "best_rate": soonest,
            "losses": {rate: run.loss for rate, run in runs.items()}}


def _iterations_to(run: Outcome, loss: float) -> float | None:
    """None for a run that failed or never came there."""
    found = curve(run)
    if found is None:
        return None
    seconds = found.time_to(loss)
    return None if seconds is None else seconds / found.times[-1] * found.iterations[-1]
