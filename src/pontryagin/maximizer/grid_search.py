"""The argmax over intervals and finite sets by values alone: entry by entry, on grids that are refined."""

from dataclasses import dataclass
from math import inf, prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import vmap

from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer.protocol import Controls, EvaluatedModel
from pontryagin.problem import (
    L0,
    L1,
    DiscreteSet,
    EntryBox,
    Finite,
    Interval,
    MatrixSet,
    PerParameter,
    ProblemError,
    Stage,
)
from pontryagin.trajectory import StageGroup

_REFINED = 26
"""Refinements of a grid of 17 points: each leaves an eighth of the interval, and 8^-26 is below float64."""


@dataclass(frozen=True)
class GridSearch:
    """max over Theta of H~, entry after entry, each on a grid that is refined around its best point, until a
    sweep changes nothing. It needs no derivative: H may have several maxima, or kinks, in an entry.

    Entries lie in an interval (Box, NonNegative, EntryBox, or R) or in a finite set (Finite, Binary, Ternary
    and Codebook with a fixed scale). Where all entries are finite and `exact_up_to` controls or fewer, all of
    them are tried: the global argmax. One entry in a bounded interval: global as far as the grid of `points`
    sees. Otherwise no entry alone can do better on its grid. Where an interval has no end the grid starts
    1 + |theta_j| around the entry, and grows while its best point is its end. Under L1 and L0 costs 0 is
    always tried.

    points: of a grid, >= 3; sweeps: at most, >= 1; exact_up_to: >= 0. For controls of a few entries: a sweep
    evaluates H~ some hundred times an entry. Raises ProblemError for other numbers and other sets.
    """

    points: int = 17
    sweeps: int = 30
    exact_up_to: int = 256

    def __post_init__(self) -> None:
        if self.points < 3 or self.sweeps < 1 or self.exact_up_to < 0:
            raise ProblemError("GridSearch: expected points >= 3, sweeps >= 1 and exact_up_to >= 0, found "
                               f"{self.points}, {self.sweeps} and {self.exact_up_to}")

    def model(self, group: StageGroup) -> "GridModel":
        """Nothing is computed before maximize. ProblemError for sets that are no product over entries."""
        sets = entry_sets(group.stage)
        if sets is None:
            raise ProblemError("GridSearch takes sets of single entries, intervals and finite sets of a "
                               f"fixed scale, but {group.stage.name} has the admissible set "
                               f"{group.stage.admissible!r}")
        return GridModel(group, self, sets)


@dataclass(frozen=True)
class EntrySet:
    """Of one entry: an interval, or the values of a finite set."""

    low: float = -inf
    high: float = inf
    values: tuple[float, ...] = ()


def entry_sets(stage: Stage) -> list[EntrySet] | None:
    """The set of each entry of a control; None where Theta is no product over entries."""
    theta = stage.admissible
    if theta.unconstrained:
        return [EntrySet()] * stage.size
    if isinstance(theta, EntryBox):
        return [EntrySet(low, high) for low, high in zip(theta.low, theta.high, strict=True)]
    if not isinstance(theta, PerParameter):
        return None
    found: list[EntrySet] = []
    for (_, shape), one in zip(theta.layout, theta.sets, strict=True):
        each = _entry_set(one)
        if each is None:
            return None
        found += [each] * prod(shape)
    return found


def _entry_set(one: MatrixSet | None) -> EntrySet | None:
    if one is None:
        return EntrySet()
    if isinstance(one, Interval):
        return EntrySet(*one.bounds)
    if isinstance(one, Finite):
        return EntrySet(values=tuple(map(float, one.values)))
    if isinstance(one, DiscreteSet) and one.scale != "row":
        return EntrySet(values=tuple(code * one.scale for code in one.grid.codes))
    return None


class GridModel(EvaluatedModel):
    """H~ as a function to be evaluated at many controls at once."""

    def __init__(self, group: StageGroup, settings: GridSearch, sets: list[EntrySet]) -> None:
        super().__init__(group)
        self.settings, self.sets = settings, sets

    def maximize(self, penalties: Penalties) -> Controls:
        """Not lower than at the start."""
        point = self.group.start
        combinations = prod(len(one.values) or self.settings.exact_up_to + 1 for one in self.sets)
        if combinations <= self.settings.exact_up_to:
            every = torch.cartesian_prod(*[point.new_tensor(one.values) for one in self.sets])
            every = every.view(combinations, 1, -1).expand(-1, len(point), -1)
            return self._better(point, self.values(point, penalties), every, penalties)[0]
        value = self.values(point, penalties)
        for _ in range(self.settings.sweeps):
            before = point
            for entry, one in enumerate(self.sets):
                point, value = self._along(point, value, entry, one, penalties)
            if torch.equal(point, before):
                break
        return point

    def _along(self, point: Controls, value: Tensor, entry: int, one: EntrySet,
               penalties: Penalties) -> tuple[Controls, Tensor]:
        """The best of one entry, the others fixed."""
        if one.values:
            return self._try(point, value, entry, point.new_tensor(one.values)[:, None], penalties)
        if isinstance(self.group.stage.running_cost, L1 | L0) and one.low <= 0 <= one.high:
            point, value = self._try(point, value, entry, torch.zeros_like(value)[None], penalties)
        low, high = self._first(point[:, entry], one)
        for _ in range(60):
            point, value = self._grid(point, value, entry, (low, high), penalties)
            best = point[:, entry]
            down, up = (best <= low) & (low > one.low), (best >= high) & (high < one.high)
            if not (down | up).any():
                break
            low = torch.where(down, low - 2 * (high - low), low).clamp_min(one.low)
            high = torch.where(up, high + 2 * (high - low), high).clamp_max(one.high)
        for _ in range(_REFINED):
            spacing = (high - low) / (self.settings.points - 1)
            if not (spacing > torch.finfo(point.dtype).eps * (1 + point[:, entry].abs())).any():
                break
            low = torch.maximum(low, point[:, entry] - spacing)
            high = torch.minimum(high, point[:, entry] + spacing)
            point, value = self._grid(point, value, entry, (low, high), penalties)
        return point, value

    @staticmethod
    def _first(entries: Tensor, one: EntrySet) -> tuple[Tensor, Tensor]:
        """Ends of the first grid: of the interval where it has both."""
        if one.low > -inf and one.high < inf:
            return torch.full_like(entries, one.low), torch.full_like(entries, one.high)
        reach = 1 + entries.abs()
        return (entries - reach).clamp_min(one.low), (entries + reach).clamp_max(one.high)

    def _grid(self, point: Controls, value: Tensor, entry: int, ends: tuple[Tensor, Tensor],
              penalties: Penalties) -> tuple[Controls, Tensor]:
        shares = torch.linspace(0, 1, self.settings.points, dtype=point.dtype, device=point.device)[:, None]
        return self._try(point, value, entry, torch.lerp(ends[0], ends[1], shares), penalties)

    def _try(self, point: Controls, value: Tensor, entry: int, candidates: Float[Tensor, "trial _"],
             penalties: Penalties) -> tuple[Controls, Tensor]:
        trials = point.repeat(len(candidates), 1, 1)
        trials[:, :, entry] = candidates
        return self._better(point, value, trials, penalties)

    def _better(self, point: Controls, value: Tensor, trials: Float[Tensor, "trial stage control"],
                penalties: Penalties) -> tuple[Controls, Tensor]:
        """The best of the point and the trials, stage by stage."""
        self.evaluations += 1
        with torch.no_grad():
            one = vmap(self.augmented(penalties))
            found = vmap(lambda controls: one(controls, *self.arguments(penalties)))(trials)
        best, place = found.nan_to_num(nan=-inf).max(0)
        better: Bool[Tensor, " stage"] = best > value
        chosen = trials[place, torch.arange(len(point), device=point.device)]
        return torch.where(better[:, None], chosen, point), torch.where(better, best, value)
