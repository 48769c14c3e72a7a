import json
import os

import pytest

from pontryagin.run.errors import ExperimentError
from pontryagin.run.files import Table, prepare, write_bytes, write_json
from pontryagin.run.summary import Measured, over_seeds, summarize, until


def test_a_new_folder_is_made(tmp_path):
    assert prepare(tmp_path / "deep" / "run", overwrite=False).is_dir()


def test_a_folder_of_something_else_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ExperimentError, match=r"thesis\.tex"):
            prepare(tmp_path, overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_overwriting_removes_the_files_of_a_run_and_nothing_else(tmp_path):
    for name in ("metrics.csv", "summary.json", "report.html", "notes.md"):
        (tmp_path / name).write_text("x\n1\n")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_text("x")
    with pytest.raises(ExperimentError, match="--overwrite"):
        prepare(tmp_path, overwrite=False)
    prepare(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.md"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ExperimentError, match="found a file"):
        prepare(tmp_path / "run", overwrite=True)


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"bad": float("nan"), "worse": [float("inf")], 0.5: 1.0})
    assert json.loads((tmp_path / "a.json").read_text()) == {"bad": None, "worse": [None], "0.5": 1.0}


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "figures" / "a.png"
    write_bytes(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.png"]


def test_rows_are_checked_and_exact(tmp_path):
    with Table(tmp_path / "t.csv", ("a", "b", "c")) as table:
        table.add(0.1 + 0.2, True, None)
        with pytest.raises(ValueError, match="expected 3 values"):
            table.add(1)
    assert (tmp_path / "t.csv").read_text() == "a,b,c\n0.30000000000000004,1,\n"


def run_of(*train: float) -> list[Measured]:
    return [Measured(k, 2 * k, 0.5 * k, loss, loss + 1) for k, loss in enumerate(train)]


def test_summary_of_seeds():
    runs = [run_of(1.0, 0.1, 0.01), run_of(1.0, 0.5, 0.2), run_of(1.0, 0.05, 0.04)]
    assert over_seeds([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert until(runs, 0.1, "evaluations") == {"median": 2.0, "min": 2.0, "max": 2.0, "reached": 2,
                                               "seeds": 3}
    assert until(runs, 0.01, "seconds") == {"median": None, "min": 1.0, "max": 1.0, "reached": 1, "seeds": 3}
    assert until(runs, 1e-9, "seconds")["min"] is None
    summary = summarize(runs, (0.1,), 0.3)
    assert summary["train_loss"]["median"] == 0.04
    assert summary["seconds_per_iteration"] == 0.5
    assert summary["iterations"] == 2
    assert summary["learning_rate"] == 0.3
