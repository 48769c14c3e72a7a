"""The iterations of a run as numbers: what was promised, what was done, what it says of Lemma 2's
constant."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from pontryagin.diagnostics.files import write_bytes
from pontryagin.problem import ProblemError
from pontryagin.update import IterationRecord

Number = float | int
COLUMNS = ("iteration", "objective", "loss", "optimality_gap", "achieved", "state_error", "costate_error",
           "estimate", "rho_state", "rho_costate", "accepted", "rejected", "evaluations", "seconds")
"""Of iterations.csv: see docs/files.md."""
STAGE_COLUMNS = ("iteration", "stage", "name", "gain", "state_error", "costate_error", "rho_state",
                 "rho_costate")
"""Of stages.csv."""


def iteration_row(record: IterationRecord) -> dict[str, Number]:
    """One iteration by COLUMNS. optimality_gap: mu_k, the decrease of J predicted for the last trial;
    costate_error: of the stages before which there is a control; achieved: what that trial did, J before
    minus J at the trial, taken or not; estimate: C_k = (optimality_gap - achieved) / sum of both errors."""
    return {
        "iteration": record.iteration, "objective": record.objective_after, "loss": record.loss_after,
        "optimality_gap": record.optimality_gap, "achieved": record.objective_before - record.trial_objective,
        "state_error": sum(stage.state_error for stage in record.stages),
        "costate_error": sum(stage.upstream * stage.costate_error for stage in record.stages),
        "estimate": record.estimate,
        "rho_state": record.penalties.rho_state, "rho_costate": record.penalties.rho_costate,
        "accepted": int(record.accepted), "rejected": record.rejected, "evaluations": record.evaluations,
        "seconds": record.seconds,
    }


def stage_rows(record: IterationRecord) -> list[dict[str, Number | str]]:
    """The stages of one iteration by STAGE_COLUMNS."""
    return [{"iteration": record.iteration, "stage": one.stage, "name": one.name, "gain": one.gain,
             "state_error": one.state_error, "costate_error": one.costate_error,
             "rho_state": one.penalties.rho_state, "rho_costate": one.penalties.rho_costate}
            for one in record.stages]


def rejected_share(records: Sequence[IterationRecord]) -> float:
    """Rejected trials among all trials of these iterations. ProblemError when there are none."""
    if not records:
        raise ProblemError("rejected_share: expected iteration records, found none")
    rejected = sum(record.rejected for record in records)
    return rejected / (rejected + sum(record.accepted for record in records))


def write_csv(records: Iterable[IterationRecord], folder: Path) -> tuple[Path, Path]:
    """iterations.csv and stages.csv in the folder, each whole or not at all; numbers with all their
    digits."""
    records = list(records)
    return (_write(folder / "iterations.csv", COLUMNS, map(iteration_row, records)),
            _write(folder / "stages.csv", STAGE_COLUMNS, (row for one in records for row in stage_rows(one))))


@runtime_checkable
class ScalarWriter(Protocol):
    """What log_scalars writes to: torch.utils.tensorboard.SummaryWriter, or anything that takes a scalar
    alike."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """A value at a step."""


def log_scalars(writer: ScalarWriter, record: IterationRecord, *, stages: bool = True) -> None:
    """One iteration as TensorBoard scalars: `msa/<column>`, and with `stages` also `msa/<column> of
    stage/<number> <name>`.

    writer: a SummaryWriter (pip install 'pontryagin[track]'). The estimate is left out where nothing moved
    and it is not defined.
    """
    if not isinstance(writer, ScalarWriter):
        raise ProblemError(f"log_scalars: expected a SummaryWriter, found {type(writer).__name__}")
    for name, value in iteration_row(record).items():
        if name != "iteration" and value == value:
            writer.add_scalar(f"msa/{name}", value, record.iteration)
    for row in stage_rows(record) if stages else ():
        for name in ("gain", "state_error", "costate_error", "rho_state"):
            writer.add_scalar(f"msa/{name} of stage/{row['stage']} {row['name']}", row[name],  # type: ignore[arg-type]
                              record.iteration)


def _write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Number | str]]) -> Path:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_bytes(path, buffer.getvalue().encode())
