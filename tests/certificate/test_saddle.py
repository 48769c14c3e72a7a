"""The saddle study: files, figure, and what it finds."""

import csv
import json
from pathlib import Path

import pytest
import torch

from pontryagin.cli import main
from pontryagin.papers.saddle import experiment
from pontryagin.papers.saddle.experiment import along, place, zeros
from pontryagin.papers.sine.task import SineTask
from redrawn import assert_drawn_again


def test_zero_controls_are_beside_a_saddle() -> None:
    """All components equal: there are directions of negative curvature."""
    found = place(SineTask("b", 0), "start", 0, zeros())
    assert float(found.extremes.lowest[0]) < 0 < float(found.extremes.highest[-1])
    assert found.row[:2] == ("start", 0)


@pytest.mark.parametrize("method", ["adam", "emsa"])
def test_places_along_a_run(method: str) -> None:
    task = SineTask("b", 0)
    found = along(task, method, 4, 1e-2, lambda k: k % 2 == 0)
    assert [iteration for iteration, _ in found] == [0, 2, 4]
    assert torch.equal(found[0][1], task.start())
    assert task.loss(found[-1][1]) < task.loss(found[0][1])


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(experiment, "LENGTHS", {"adam": 2, "emsa": 2})
    monkeypatch.setattr(experiment, "spectrum", lambda task, theta: (
        torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64),
        experiment.Density(torch.linspace(-2, 3, 50), torch.ones(50), 0.1)))
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "saddle", "--places", "2", "--out", str(tmp_path / "run")])
    assert stop.value.code == 0
    assert "eigenvalues from -1 to 2, 1 of 3 negative" in capsys.readouterr().out
    with (tmp_path / "run" / "curvature.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["iteration"])
            for row in rows] == [("adam", "0"), ("adam", "2"), ("emsa", "0"), ("emsa", "2")]
    assert all(float(row["least"]) < float(row["greatest"]) for row in rows)
    assert not json.loads((tmp_path / "run" / "summary.json").read_text())["interrupted"]
    assert (tmp_path / "run" / "figures" / "saddle.png").read_bytes().startswith(b"\x89PNG")
    assert_drawn_again(tmp_path / "run")
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "saddle", "--places", "1", "--out", str(tmp_path / "other")])
    assert stop.value.code == 2
