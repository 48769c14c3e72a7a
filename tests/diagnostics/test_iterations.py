"""Records as tables and scalars."""

import csv
import math
from pathlib import Path

import pytest

from builders import split_problem
from pontryagin.diagnostics import iteration_row, log_scalars, rejected_share, stage_rows, write_csv
from pontryagin.diagnostics.iterations import COLUMNS, STAGE_COLUMNS
from pontryagin.problem import ProblemError
from pontryagin.update import AcceptReject, ExtendedMSA, IterationRecord, PerStageEstimate


def records(rho: float = 0.3) -> list[IterationRecord]:
    return list(ExtendedMSA(split_problem(), penalty=AcceptReject(rho=rho)).iterate(4))


def test_columns_say_what_the_record_says() -> None:
    for record in records():
        row = iteration_row(record)
        assert tuple(row) == COLUMNS
        assert row["optimality_gap"] - row["achieved"] == pytest.approx(
            row["estimate"] * (row["state_error"] + row["costate_error"]), rel=1e-9)
        assert row["optimality_gap"] == pytest.approx(sum(one["gain"] for one in stage_rows(record)))
        assert row["objective"] == record.objective_after


def test_share_of_rejected_trials() -> None:
    done = records(rho=1e-3)
    rejected = sum(record.rejected for record in done)
    assert rejected > 0
    assert rejected_share(done) == rejected / (rejected + len(done))
    with pytest.raises(ProblemError, match="found none"):
        rejected_share([])


def test_csv_files_hold_every_digit(tmp_path: Path) -> None:
    done = list(ExtendedMSA(split_problem(), penalty=PerStageEstimate()).iterate(3))
    iterations, stages = write_csv(iter(done), tmp_path / "new")
    with iterations.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [float(row["estimate"]) for row in rows] == [record.estimate for record in done]
    with stages.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == STAGE_COLUMNS
    found = [float(row["rho_state"]) for row in rows[-3:]]
    assert found == [one.penalties.rho_state for one in done[-1].stages]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["iterations.csv", "stages.csv"]


class Writer:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[int, float]]] = {}

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.seen.setdefault(tag, []).append((global_step, scalar_value))


def test_scalars_by_iteration_and_stage() -> None:
    writer, done = Writer(), records()
    for record in done:
        log_scalars(writer, record)
    assert writer.seen["msa/optimality_gap"] == [(record.iteration, record.optimality_gap) for record in done]
    first = done[0].stages[0]
    assert writer.seen[f"msa/gain of stage/{first.stage} {first.name}"][0] == (1, first.gain)
    short = Writer()
    log_scalars(short, done[0], stages=False)
    assert len(short.seen) == len(COLUMNS) - 1
    assert not any(math.isnan(value) for values in writer.seen.values() for _, value in values)
    with pytest.raises(ProblemError, match="expected a SummaryWriter, found str"):
        log_scalars("runs", done[0])


@pytest.mark.slow
def test_tensorboard_reads_them_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    done = records()
    with SummaryWriter(str(tmp_path)) as writer:
        for record in done:
            log_scalars(writer, record)
    events = EventAccumulator(str(tmp_path)).Reload()
    found = events.Scalars("msa/rho_state")
    assert [event.step for event in found] == [record.iteration for record in done]
    assert [event.value for event in found] == pytest.approx([record.penalties.rho_state for record in done],
                                                             rel=1e-6)
