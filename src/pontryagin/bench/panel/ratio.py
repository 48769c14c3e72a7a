"""How much sooner one run is where another one has come: the arithmetic of the panel."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log
from statistics import fmean

SHARES = {"quarter": 0.25, "half": 0.5, "end": 1.0}
LEAST, MOST = 0.1, 10.0
"""What a ratio counts at least and at most in a geometric mean: that of a run that failed, of a rival's that
did."""


@dataclass(frozen=True)
class Curve:
    """Losses of a run after times, the start at time 0 first; iterations: after how many."""

    iterations: Sequence[int]
    times: Sequence[float]
    losses: Sequence[float]

    def time_to(self, loss: float) -> float | None:
        """When the loss was first as low, None if never; between two points log(loss) is linear in time (the
        loss itself where one is not positive)."""
        for n, found in enumerate(self.losses):
            if found <= loss:
                return self.times[n] if n == 0 else self._between(n, loss)
        return None

    def loss_at(self, time: float) -> float:
        """That of the last point until then."""
        return next(loss for at, loss in zip(reversed(self.times), reversed(self.losses), strict=True)
                    if at <= time)

    def at_share(self, share: float) -> float:
        """The loss after that share of the iterations, at the nearest point."""
        wanted = share * self.iterations[-1]
        return self.losses[min(range(len(self.losses)), key=lambda n: abs(self.iterations[n] - wanted))]

    def _between(self, n: int, loss: float) -> float:
        before, after = self.losses[n - 1], self.losses[n]
        if not before < inf:
            return self.times[n]
        form = log if min(after, loss) > 0 else float
        share = (form(before) - form(loss)) / (form(before) - form(after))
        return self.times[n - 1] + share * (self.times[n] - self.times[n - 1])


@dataclass(frozen=True)
class Ratio:
    """A rival's time over EMSA's: above 1, EMSA is sooner. bound: it is less than that, and than 1, for EMSA
    never came there."""

    value: float
    bound: bool = False

    def __str__(self) -> str:
        return f"< {self.value:.2f}" if self.bound else f"{self.value:.2f}"


def sooner(emsa: Curve | None, rival: Curve, share: float, longer: Curve | None = None) -> Ratio:
    """To the rival's loss after that share of its run. emsa: None if it failed. longer: a run of more
    iterations, where emsa never came there."""
    target = rival.at_share(share)
    own, its = None if emsa is None else emsa.time_to(target), rival.time_to(target) or 0.0
    if own is not None:
        return Ratio(its / own) if own else Ratio(inf)
    if longer is not None and (own := longer.time_to(target)):
        return Ratio(min(its / own, its / emsa.times[-1]) if emsa else its / own)
    last = longer or emsa
    return Ratio(min(its / last.times[-1], 1.0), True) if last else Ratio(0.0, True)


def geometric(ratios: Sequence[float]) -> float:
    """Their geometric mean, each within [LEAST, MOST]."""
    return exp(fmean(log(min(max(ratio, LEAST), MOST)) for ratio in ratios))
