"""All parameters of a module that lie in sets: the discrete ones, and those that are projected."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.maximizer.priced_argmax import shares
from pontryagin.optim.constrained.discrete_stage import DiscreteStage, DiscreteState
from pontryagin.optim.table import StageRow
from pontryagin.problem import DiscreteSet, MatrixSet, NonFiniteError, ProblemError
from pontryagin.problem.admissible import Rows, rows_by_name
from pontryagin.problem.admissible.by_name import ModelSets, sets_by_parameter
from pontryagin.problem.admissible.grid import best_scale
from pontryagin.trajectory.captured_stage import CapturedStage


class Constraints:
    """Which parameters are maximized over discrete sets, and which are put back into their set after every
    step.

    start() projects every constrained parameter onto its set; for discrete sets with a fixed scale the codes
    are those nearest to the rows at any scale.
    """

    def __init__(self, model: nn.Module, request: ModelSets | None,
                 captured: Sequence[CapturedStage]) -> None:
        self.discrete: dict[int, DiscreteStage] = {}
        self.projected: list[tuple[nn.Parameter, MatrixSet, Rows]] = []
        self._nearest: list[tuple[nn.Parameter, Tensor]] = []
        if request is None:
            return
        named, stages = dict(model.named_parameters()), {id(stage.weight): stage for stage in captured}
        rows = rows_by_name(model)
        sets = {name: one.within(rows[name]) for name, one in sets_by_parameter(model, request).items()}
        self._nearest = [(named[name], _projection(name, named[name], one, rows[name]))
                         for name, one in sets.items()]
        for name, one in sets.items():
            if isinstance(one, DiscreteSet):
                self.discrete[id(named[name])] = DiscreteStage(_supported(name, one,
                                                                          stages.get(id(named[name]))), one)
            else:
                self.projected.append((named[name], one, rows[name]))

    @torch.no_grad()
    def start(self) -> None:
        """Put every constrained parameter into its set; nothing is changed before."""
        for parameter, value in self._nearest:
            parameter.copy_(value)
        self._nearest = []

    @property
    def biases(self) -> set[int]:
        """Ids of the biases of the discrete stages."""
        return {id(stage.captured.bias)
                for stage in self.discrete.values() if stage.captured.bias is not None}

    def rows(self) -> tuple[StageRow, ...]:
        """Of the discrete stages, and of their biases, for the table of stages."""
        rows = []
        for stage in self.discrete.values():
            shape = stage.captured.map.matrix(stage.weight.detach()).shape
            groups, outputs, inputs = shape
            rows.append(StageRow(stage.name, stage.captured.map.kind, outputs, inputs, groups,
                                 f"argmax over {stage.theta!r}", 0.0, 0.0))
            if stage.captured.bias is not None:
                rows.append(StageRow(f"{stage.name.removesuffix('weight')}bias", "-", 0, 0, 0, "AdamW", 0.0,
                                     0.0))
        return tuple(rows)

    def check(self, group: dict[str, Any]) -> None:
        """Raise ProblemError for settings of a param group that a discrete stage in it cannot take."""
        for parameter in group["params"]:
            if id(parameter) in self.discrete:
                self.discrete[id(parameter)].check(group)

    def prepare(self, states: Mapping[Any, dict[str, Tensor]], groups: Mapping[int, dict[str, Any]]) -> None:
        """Raise ProblemError where a discrete weight has left its set; nothing has been changed then."""
        for stage in self._moving(groups):
            stage.prepare(DiscreteState(states[stage.weight]))

    def step(self, states: Mapping[Any, dict[str, Tensor]], groups: Mapping[int, dict[str, Any]],
             largest: Mapping[int, float]) -> None:
        """Maximize every discrete stage that has a gradient and is trained. largest: by the id of a weight,
        the largest entry of its gradient."""
        kept = self._shares(groups)
        for stage in self._moving(groups):
            key = id(stage.weight)
            stage.step(DiscreteState(states[stage.weight]), groups[key], kept.get(key), largest[key])

    def _moving(self, groups: Mapping[int, dict[str, Any]]) -> list[DiscreteStage]:
        return [stage for key, stage in self.discrete.items()
                if key in groups and stage.weight.requires_grad and stage.weight.grad is not None]

    def _shares(self, groups: Mapping[int, dict[str, Any]]) -> dict[int, float]:
        """The share of non-zero weights of every stage whose group has one."""
        found: dict[int, float] = {}
        priced = {key: groups[key]
                  for key in self.discrete if key in groups and groups[key]["density"] is not None}
        for group in {id(group): group for group in priced.values()}.values():
            keys = [key for key in priced if priced[key] is group]
            shapes = [Rows(self.discrete[key].weight.shape).size for key in keys]
            found.update(zip(keys, shares(shapes, group["density"]), strict=True))
        return found

    def moved(self, states: Mapping[Any, dict[str, Tensor]]) -> dict[str, float]:
        """The share of entries that the last step moved, by the name of the weight."""
        return {stage.name: float(states[stage.weight]["moved"]) for stage in self.discrete.values()
                if "moved" in states.get(stage.weight, {})}

    def project(self) -> None:
        """Put every other constrained parameter back into its set."""
        for parameter, one, rows in self.projected:
            if parameter.requires_grad:
                parameter.copy_(rows.shaped(one.project(rows.matrix(parameter))))

    def arm(self, states: Callable[[Tensor], dict[str, Tensor]]) -> None:
        """Look at the next batch where it is time."""
        for stage in self.discrete.values():
            stage.arm(DiscreteState(states(stage.weight)))

    def forget(self) -> None:
        """Drop what has been seen of a batch that is not used."""
        for stage in self.discrete.values():
            stage.forget()


def _projection(name: str, parameter: nn.Parameter, one: MatrixSet, rows: Rows) -> Tensor:
    try:
        one.check(*rows.size)
        if not parameter.isfinite().all():
            raise NonFiniteError(f"admissible, {name}: the parameter holds NaN or infinite values")
        return rows.shaped(_start(one, rows.matrix(parameter.detach())))
    except ProblemError as error:
        raise ProblemError(f"admissible, {name}: {error}") from error


def _start(one: MatrixSet, matrix: Tensor) -> Tensor:
    """The nearest point; over a grid with a fixed scale the nearest codes at any scale, so that small weights
    are not all 0."""
    if isinstance(one, DiscreteSet) and one.scale != "row" and not one.contains(matrix):
        return one.project(best_scale(matrix, one.grid)[0] * one.scale)
    return one.project(matrix)


def _supported(name: str, one: DiscreteSet, stage: CapturedStage | None) -> CapturedStage:
    kind = "no affine stage" if stage is None else stage.map.kind
    if stage is None or not _is_plain(stage):
        raise ProblemError(f"admissible, {name}: EMSA maximizes over {one!r} for weights of Linear and of "
                           f"convolutions, but this parameter belongs to {kind}; leave it out, or give it a "
                           "set such as Box(-1, 1)")
    return stage


def _is_plain(stage: CapturedStage) -> bool:
    """Whether the weight, flattened after its first axis, is the matrix W of the module's own output."""
    if stage.map.outputs is None or stage.map.one_hot or stage.weight.ndim < 2:
        return False
    entries = torch.arange(stage.weight.numel()).view(stage.weight.shape)
    return torch.equal(stage.map.matrix(entries).flatten(0, 1), entries.flatten(1))
