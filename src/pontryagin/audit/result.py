"""What an audit found: numbers by stage and set, and their ranking."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Restriction:
    """A stage alone moved into an admissible set; costs are changes of the mean loss, with standard errors
    over batches.

    change: |dW| / |W|. first_order: -Delta H. true: None where it was not measured. rank: 1 for the stage
    that the prediction says costs least in this set.
    """

    set: str
    change: float
    first_order: float
    predicted: float
    predicted_error: float
    true: float | None = None
    true_error: float | None = None
    rank: int = 0


@dataclass(frozen=True)
class StageAudit:
    """One affine stage.

    gain: Hamiltonian gain still to be had, in units of the loss, free of the bias of noise (so it may come
    out negative), with its standard error over batches; gain_here: the same for these batches taken as the
    whole data, never negative. costate_norm: root mean square over samples of |u|, all positions of a sample
    together; None where z cannot be watched. condition: of the damped Gram matrix; effective_rank: tr(A)^2 /
    tr(A^2), of `inputs` at most. omitted: sets that do not fit, and why.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    inputs: int
    gain: float | None
    gain_error: float | None
    gain_here: float | None
    costate_norm: float | None
    condition: float
    effective_rank: float
    rows: int
    restrictions: tuple[Restriction, ...] = ()
    omitted: dict[str, str] = field(default_factory=dict)

    def restriction(self, name: str) -> Restriction | None:
        """That to the set of this name, if it fits."""
        return next((each for each in self.restrictions if each.set == name), None)


@dataclass(frozen=True)
class Audit:
    """An audited network: stages in the order of its parameters; loss is the mean over samples, error over
    batches.

    unseen: parameters that belong to no stage that could be watched, and why.
    """

    loss: float
    loss_error: float
    loss_name: str
    samples: int
    batches: int
    sets: tuple[str, ...]
    damping: float
    stages: tuple[StageAudit, ...]
    unseen: dict[str, str]

    @property
    def gain(self) -> float:
        """Sum of the stages' gains: the optimality gap."""
        return sum((stage.gain for stage in self.stages if stage.gain is not None), 0.0)

    @property
    def gain_error(self) -> float:
        """Its standard error if the stages' errors were independent."""
        return sum((stage.gain_error**2 for stage in self.stages if stage.gain_error is not None), 0.0) ** 0.5

    def ranking(self, name: str) -> list[tuple[StageAudit, Restriction]]:
        """Stages that fit a set, the one that is predicted to cost least first."""
        found = [(stage, each) for stage in self.stages if (each := stage.restriction(name)) is not None]
        return sorted(found, key=lambda pair: pair[1].rank)

    def agreement(self, name: str) -> float | None:
        """Spearman's rank correlation of predicted with true costs in a set; None with fewer than three of
        them."""
        pairs = [(each.predicted, each.true) for _, each in self.ranking(name) if each.true is not None]
        return spearman(*zip(*pairs, strict=True)) if len(pairs) > 2 else None

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain numbers, lists and dicts."""
        return {**asdict(self), "gain": self.gain, "gain_error": self.gain_error,
                "agreement": {name: self.agreement(name) for name in self.sets}}

    def __str__(self) -> str:
        return table(self)


def ranked(stages: Sequence[StageAudit], sets: Sequence[str]) -> tuple[StageAudit, ...]:
    """The stages with the ranks of their restrictions."""
    places: dict[tuple[str, str], int] = {}
    for name in sets:
        found = [(each.predicted, stage.name)
                 for stage in stages if (each := stage.restriction(name)) is not None]
        places |= {(stage, name): rank for rank, (_, stage) in enumerate(sorted(found), 1)}
    return tuple(replace(stage, restrictions=tuple(
        replace(each, rank=places[stage.name, each.set]) for each in stage.restrictions)) for stage in stages)


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation, ties sharing their mean rank; nan when all values of one are equal."""
    ranks = torch.stack([_ranks(first), _ranks(second)])
    centred = ranks - ranks.mean(1, keepdim=True)
    size = centred.square().sum(1).sqrt().prod().item()
    return (centred[0] * centred[1]).sum().item() / size if size else float("nan")


def _ranks(values: Sequence[float]) -> torch.Tensor:
    found = torch.tensor(values, dtype=torch.float64)
    return ((found[:, None] > found).sum(1) + ((found[:, None] == found).sum(1) - 1) / 2).double()


def table(audit: Audit) -> str:
    """Text: a row a stage, costs as predicted / true."""
    rows = [["stage", "kind", "parameters", "gain", "+-", "costate", "condition", "eff. rank", *audit.sets]]
    rows += [[stage.name, stage.kind, str(stage.parameters), _number(stage.gain), _number(stage.gain_error),
              _number(stage.costate_norm), f"{stage.condition:.3g}",
              f"{stage.effective_rank:.1f}/{stage.inputs}",
              *(_cost(stage.restriction(name)) for name in audit.sets)] for stage in audit.stages]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in rows]
    lines.append(f"loss {audit.loss:.4g} +- {audit.loss_error:.2g} ({audit.loss_name}), gain of all stages "
                 f"{_number(audit.gain)} +- {_number(audit.gain_error)}; {audit.samples} samples in "
                 f"{audit.batches} batches")
    lines.append("costs of a stage alone in a set: predicted / true change of the loss")
    agreement = [(name, audit.agreement(name)) for name in audit.sets]
    if told := ", ".join(f"{name} {value:.2f}" for name, value in agreement if value is not None):
        lines.append(f"rank correlation of predicted with true costs: {told}")
    return "\n".join(lines + [f"not audited: {name} ({why})" for name, why in audit.unseen.items()])


def _cost(each: Restriction | None) -> str:
    if each is None:
        return "-"
    return _number(each.predicted) + ("" if each.true is None else f" / {_number(each.true)}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
