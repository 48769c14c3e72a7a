"""The table that EMSA.stages() prints."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from pontryagin.optim.stage import AffineStage


@dataclass(frozen=True)
class StageRow:
    """One stage. share: of the propagation's flops; refresh: flops of a refresh per step, relative to the
    propagation of all."""

    name: str
    kind: str
    outputs: int
    inputs: int
    groups: int
    maximized: str
    share: float
    refresh: float


@dataclass(frozen=True)
class StageTable:
    """Rows, what is to be said beside them, and their text."""

    rows: tuple[StageRow, ...]
    note: str = ""

    def __str__(self) -> str:
        header = ("stage", "kind", "outputs", "inputs", "groups", "maximized by", "share of work", "refresh")
        lines = [header] + [(row.name, row.kind, str(row.outputs), str(row.inputs), str(row.groups),
                             row.maximized,
                             f"{row.share:.1%}", f"{row.refresh:.2%}") for row in self.rows]
        widths = [max(len(line[n]) for line in lines) for n in range(len(header))]
        text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                for line in lines]
        return "\n".join([*text, self.note] if self.note else text)


def rows_of(stages: Sequence[AffineStage], outside: Sequence[str], every: int) -> tuple[StageRow, ...]:
    """Of the stages that are trained as such, and the parameters trained outside any.

    Before the first step the shares of work are unknown and given as 0.
    """
    work = sum(stage.propagation_work for stage in stages) or inf
    rows = [StageRow(stage.name, stage.map.kind, stage.outputs, stage.inputs, stage.groups,
                     _method(stage), stage.propagation_work / work, stage.refresh_work / every / work)
            for stage in stages]
    return tuple(rows) + tuple(StageRow(name, "-", 0, 0, 0, "AdamW", 0.0, 0.0) for name in outside)


def _method(stage: AffineStage) -> str:
    if stage.map.one_hot:
        return "closed form, frequencies"
    if stage.inputs == 1:
        return "closed form, scalar"
    if stage.inputs == stage.rank:
        return "closed form, full metric"
    return f"closed form, subspace of {stage.rank}"
