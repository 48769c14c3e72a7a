"""Which process steps which stage: every process all of them, unless stages have owners (owned.py)."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.affine import Moments
from pontryagin.distributed.reductions import mean_over_processes, sum_over_processes
from pontryagin.optim import compiled
from pontryagin.optim.group import Groups, StageGroup, TrainedStage, grouped
from pontryagin.optim.moves import Moves
from pontryagin.optim.own_units import First
from pontryagin.optim.pack_step import PackStep
from pontryagin.optim.packed import Pack
from pontryagin.optim.packing import BY_ROWS, POLAR, packed
from pontryagin.optim.polar_pack_step import PolarPackStep
from pontryagin.optim.polar_step import PolarStep
from pontryagin.optim.row_step import RowStep
from pontryagin.optim.stage import AffineStage
from pontryagin.optim.state import Entries, StageState, States
from pontryagin.trajectory.local import whole

Steps = list[RowStep | PolarStep]
Seen = tuple[AffineStage, Moments, First]
"""A stage, the moments of its inputs in the last batch, over all processes, and what is known of a first."""
Saved = dict[int, dict[str, Tensor]]
"""Entries by the numbers of parameters."""


def joined(groups: Sequence[StageGroup]) -> Steps:
    """The steps of groups, those together that share their settings."""
    alike: dict[Hashable, list[StageGroup]] = {}
    for group in groups:
        alike.setdefault(group.first.settings, []).append(group)
    return [step for each in alike.values() for step in (
        _polar_steps(each) if each[0].first.is_polar else _row_steps(packed(each, BY_ROWS)))]


def _row_steps(parts: Sequence[StageGroup | Pack]) -> Steps:
    alone = [part for part in parts if isinstance(part, Pack) and compiled.fits(part.velocity)]
    others = [part for part in parts if part not in alone]
    return [*map(PackStep, alone), *([RowStep(others)] if others else [])]


def _polar_steps(groups: Sequence[StageGroup]) -> Steps:
    if not compiled.fits(groups[0].velocity):
        return [PolarStep(groups)]
    parts = packed(groups, POLAR)
    others = [part for part in parts if not isinstance(part, Pack)]
    return [*(PolarPackStep(part) for part in parts if isinstance(part, Pack)),
            *([PolarStep(others)] if others else [])]


def _first(stage: AffineStage, device: torch.device) -> First:
    made = sum_over_processes(0 if stage.captured.are_data else 1, device)
    return First(sum_over_processes(stage.captured.positions, device), made == 0)


class Share:
    """Every process steps all stages. What it does beside is what a step asks of other processes."""

    group: Any = None
    """Of the processes whose batches count, where the model itself tells."""
    is_local = True
    """Whether all gradients and controls lie whole in this process."""

    def assign(self, stages: Sequence[AffineStage]) -> None:
        """All stages of the model, and those that it has got since."""

    def owns(self, parameter: nn.Parameter) -> bool:
        """Whether this process steps the stage of a parameter."""
        return True

    def counts(self, parameter: nn.Parameter) -> bool:
        """Whether a sum over this process's part of a parameter that is in no stage counts in that over all
        processes."""
        return True

    def rest(self, model: nn.Module) -> None:
        """Parameters as they lie between passes."""

    def begin(self, failed: bool) -> None:
        """Every process begins a step. failed: this one cannot. ProblemError where another cannot."""

    def prepare(self, parameters: Iterable[nn.Parameter]) -> None:
        """Parameters and gradients as a step expects them."""

    def sizes(self, parameters: Sequence[nn.Parameter], own: list[float]) -> list[float]:
        """The largest entry of each gradient; own: of the parts that lie here."""
        return own

    def initialize(self, stage: AffineStage, state: StageState, has_bias: bool) -> None:
        """What there is of the state of a stage, for those who fill it in place."""
        stage.initialize(state, has_bias)

    def moments(self, armed: Sequence[tuple[AffineStage, StageState]]) -> list[Seen]:
        """Of the stages that are stepped here, as far as their inputs have been seen."""
        found = []
        for stage, state in armed:
            moments = mean_over_processes(stage.captured.take(), stage.zeros)
            if moments is not None:
                found.append((stage, moments, _first(stage, moments.mean.device)
                              if not state.has_moments else First(0, False)))
        return found

    def tell(self, armed: Sequence[tuple[AffineStage, StageState]]) -> None:
        """The moments have been taken in."""

    def steps(self, stages: Sequence[TrainedStage]) -> Steps:
        """Those of this process."""
        return joined(grouped(stages))

    def arriving(self, steps: Steps) -> Iterable[RowStep | PolarStep]:
        """The steps, each as soon as the gradients of its stages are here."""
        return steps

    def agreed(self, are_finite: bool, sums: list[float]) -> tuple[bool, list[float]]:
        """Whether the steps of all are finite, and what they promise together."""
        return are_finite, sums

    def names(self, own: list[str]) -> list[str]:
        """Of stages whose steps are not finite, anywhere."""
        return own

    def moves(self, own: list[Moves], groups: Groups) -> list[Moves]:
        """Of all stages, for the parts of parameters that lie here."""
        return own

    def bases(self, wanted: Sequence[AffineStage], states: States) -> Mapping[int, Entries]:
        """By the id of the weight, what a stage needs to know of its state for a look, and has not here."""
        return {}

    def keeps_average(self, parameter: Tensor) -> bool:
        """Whether the average of a parameter, or of its part, is kept here."""
        return True

    def bring_averages(self, parameters: Sequence[nn.Parameter], states: States) -> None:
        """So that all can be shown."""

    def drop_averages(self, parameters: Sequence[nn.Parameter], states: States) -> None:
        """Those that have been brought."""

    def saved(self, state: Saved, parameters: Sequence[nn.Parameter]) -> Saved:
        """What state_dict() gives."""
        return state

    def taken(self, parameter: nn.Parameter, name: str, value: Tensor) -> Tensor | None:
        """What is kept here of a saved entry."""
        return whole(value).detach().clone()
