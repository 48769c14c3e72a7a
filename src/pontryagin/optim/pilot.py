"""Which learning rate is best, judged by pilots: short runs, each with a decay of its own, losers left out
early.

At a constant rate short runs mistake the best rate of a long one, for a rate too small looks best as soon as
the noise of the batches is what counts. So every pilot is a whole run in small, its rate linear to 0, from
the same weights on the same batches. Successive halving (Jamieson and Talwalkar, AISTATS 2016): all rates get
a quarter of the iterations, the best two get them all.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from pontryagin.errors import NonFiniteError

FINALISTS = 2
_SHARE, _LEAST = 4, 10
"""The first pilots have one part in four of the iterations, but no fewer than ten: five mistake the rate of a
chain of ten layers."""
_TAIL = 5
"""A score is the mean of the last part in five of the losses: of few enough to be those of the end."""


@dataclass(frozen=True)
class Pilot:
    """One short run. iterations: that it was to have. losses: of its batches, each before its step, the mean
    over processes. forward, backward: passes of a batch that it took. failure: what was not finite and ended
    it early; empty where nothing was."""

    rate: float
    iterations: int
    losses: Sequence[float]
    forward: int
    backward: int
    seconds: float
    failure: str = ""

    @property
    def score(self) -> float:
        """The mean of the last fifth of the losses, smaller is better; infinite after a failure."""
        last = self.losses[-max(1, self.iterations // _TAIL):]
        return inf if self.failure or not last else sum(last) / len(last)


@dataclass(frozen=True)
class FoundRate:
    """rate: the one to train with. pilots: all of them, in their order. batches: that were kept in memory
    meanwhile."""

    rate: float
    pilots: tuple[Pilot, ...]
    batches: int

    @property
    def iterations(self) -> int:
        """Of all pilots together, as what follows."""
        return sum(len(pilot.losses) for pilot in self.pilots)

    @property
    def forward(self) -> int:
        """Passes."""
        return sum(pilot.forward for pilot in self.pilots)

    @property
    def backward(self) -> int:
        """Passes."""
        return sum(pilot.backward for pilot in self.pilots)

    @property
    def seconds(self) -> float:
        """Of wall clock."""
        return sum(pilot.seconds for pilot in self.pilots)

    @property
    def is_at_edge(self) -> bool:
        """Whether the rate is the least or the greatest of those tried, so that one beyond may be better."""
        tried = [pilot.rate for pilot in self.pilots]
        return self.rate in (min(tried), max(tried))

    @property
    def words(self) -> str:
        """The rate and what it cost, in a line."""
        edge = ", the last of those tried: one beyond may be better" if self.is_at_edge else ""
        start = next((pilot.losses[0] for pilot in self.pilots if pilot.losses), inf)
        if min(pilot.score for pilot in self.pilots) >= start:
            edge += ", but no pilot lowered the loss"
        return (f"learning rate {self.rate:g}{edge}; found by {len(self.pilots)} pilots: {self.iterations} "
                f"iterations, {self.forward} forward and {self.backward} backward passes, {self.seconds:.3g} "
                "s")

    def __str__(self) -> str:
        rows = [f"{pilot.rate:>10g}{pilot.iterations:>12d}{pilot.score:>12.4g}  {pilot.failure}".rstrip()
                for pilot in self.pilots]
        return "\n".join([f"{'rate':>10}{'iterations':>12}{'loss':>12}", *rows, self.words])

    def draw(self, axes: Any) -> None:
        """The losses of all pilots, on axes of matplotlib; those of the rate that was found are thick."""
        colors = {rate: f"C{number}" for number, rate in enumerate(sorted({one.rate for one in self.pilots}))}
        for pilot in self.pilots:
            found = pilot.rate == self.rate
            axes.plot(range(1, len(pilot.losses) + 1), pilot.losses, color=colors[pilot.rate],
                      linewidth=2.4 if found else 1.0, zorder=3 if found else 2,
                      label=f"{pilot.rate:g}, {pilot.iterations} iterations")
        if all(loss > 0 for pilot in self.pilots for loss in pilot.losses):
            axes.set_yscale("log")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("iteration of the pilot")
        axes.set_ylabel("loss of the batch")
        axes.legend(title="learning rate", fontsize="small")


def halving(rates: Iterable[float], iterations: int, pilot: Callable[[float, int], Pilot | None]
            ) -> tuple[float, tuple[Pilot, ...]] | None:
    """The rate with the least score among the finalists, and all pilots; None as soon as one is None.

    pilot: of a rate, so many iterations long. Finalists are the best two whose pilot of full length stays
    finite. Raises NonFiniteError when there is none.
    """
    left, pilots = sorted(set(rates)), list[Pilot]()
    first = max(_LEAST, iterations // _SHARE)
    rounds = [(first, len(left)),
              (iterations, FINALISTS)] if first < iterations else [(iterations, len(left))]
    for length, wanted in rounds:
        finite: list[Pilot] = []
        for rate in left:
            if len(finite) < wanted:
                found = pilot(rate, length)
                if found is None:
                    return None
                pilots.append(found)
                finite += [found] if isfinite(found.score) else []
        if not finite:
            raise NonFiniteError(f"no learning rate of {', '.join(f'{rate:g}' for rate in sorted(left))} "
                                 f"keeps the loss finite over {length} iterations ({pilots[-1].failure}): "
                                 "try smaller rates, and look at the loss of the first batch")
        left = [one.rate for one in sorted(finite, key=lambda one: one.score)]
    return left[0], tuple(pilots)
