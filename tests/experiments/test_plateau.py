"""The sweep over noise, depth and seeds: what counts as leaving, and the command's files."""

import csv
import json
from pathlib import Path

import pytest

from pontryagin.cli import main
from pontryagin.papers.plateau.experiment import PlateauSettings, leave
from pontryagin.papers.sine.methods import METHODS
from pontryagin.papers.sine.setup import SineSetup
from pontryagin.papers.sine.task import SineTask
from pontryagin.run.errors import ExperimentError
from redrawn import assert_drawn_again


def test_a_plateau_is_left_when_the_loss_is_first_that_low() -> None:
    task, losses = SineTask("b", 3, SineSetup(layers=6, noise=0.02)), []
    METHODS["emsa"].run(task, 40, 0.0, lambda theta, spent, record: losses.append(
        task.loss(theta).item()) or True)
    found = leave(METHODS["emsa"], 6, 0.02, 3, None, PlateauSettings(below=losses[11], iterations=40))
    assert found.iterations == 1 + next(k for k, loss in enumerate(losses) if loss <= losses[11])
    assert found.train_loss <= losses[11]
    stayed = leave(METHODS["sgd"], 6, 0.02, 3, 1e-6, PlateauSettings(iterations=5))
    assert stayed.iterations is None
    assert stayed.train_loss > 0.1


def test_command(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "plateau", "--depths", "4,6", "--noises", "1e-2,0.1", "--seeds", "1",
              "--iterations", "3", "--methods", "emsa,sgd", "--below", "0.5", "--out", str(out)])
    assert stop.value.code == 0
    with (out / "plateau.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2
    assert {(row["layers"], row["noise"]) for row in rows} == {
        (layers, noise) for layers in ("4", "6") for noise in ("0.01", "0.1")}
    assert all((row["iterations"] != "") == (float(row["train_loss"]) <= 0.5) for row in rows)
    summary = json.loads((out / "summary.json").read_text())
    assert len(summary["plateau"]) == 8
    assert set(summary["tuning"]["4"]) == {"sgd"}
    assert (out / "figures" / "plateau.png").read_bytes().startswith(b"\x89PNG")
    assert_drawn_again(out)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"depths": (4, 4)}, "--depths: expected different numbers"), ({"noises": ()}, "--noises"),
    ({"noises": (0.0,)}, "--noises"), ({"methods": ("adamm",)}, "adamm"), ({"below": 0.0}, "--below")])
def test_wrong_settings(wrong: dict, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        PlateauSettings(**wrong)
