import csv
import json
import sys

import pytest
import torch

from pontryagin.bench.benchmark import COLUMNS, BenchSettings, available, badness, summarize
from pontryagin.bench.racers import METHODS, Racer, run_race
from pontryagin.bench.report import table
from pontryagin.bench.tasks import make
from pontryagin.cli import main
from pontryagin.run.errors import ExperimentError
from pontryagin.run.progress import Progress
from redrawn import assert_drawn_again


def silent(done: int, loss: float | None) -> None:
    """Progress that nobody looks at."""


@pytest.mark.parametrize("name", ["cnn", "mlp", "autoencoder", "transformer"])
def test_emsa_lowers_the_loss_of_every_task(name):
    task = make(name, "digits", None)
    one = Racer(task, METHODS["emsa"], 0.03, 0, 12)
    run_race(task, [one], 12, silent)
    assert list(one.losses) == [5, 10, 12]
    assert one.losses[12] < 0.95 * one.losses[5]
    assert not one.stopped
    assert list(one.scores) == [12]


@pytest.mark.parametrize("method", ["emsa", "adam", "adamw", "sgd-momentum", "muon", *(
    pytest.param(name, marks=pytest.mark.extra) for name, method in METHODS.items() if method.needs)])
def test_methods_start_alike_and_learn(method):
    if METHODS[method].needs:
        pytest.importorskip(METHODS[method].needs)
    task = make("cnn", "digits", None)
    one, other = (Racer(task, METHODS[method], METHODS[method].rates[0], 3, 6) for _ in range(2))
    fresh = started(task, 3)
    before = one.iterate().loss
    inputs, targets = next(task.batches(3))
    assert before == pytest.approx(task.objective.mean(fresh(inputs), targets).item())
    run_race(task, [one], 0, silent)
    run_race(task, [other], 0, silent)
    assert one.losses == other.losses
    assert list(one.losses) == [5, 6]
    assert one.losses[6] < before
    assert any(not torch.equal(a, b)
               for a, b in zip(one.trainer.model.parameters(), fresh.parameters(), strict=True))


def test_of_all_methods_those_without_their_package_are_left_out_and_named(monkeypatch):
    class Said(Progress):
        def say(self, text):
            lines.append(text)

    lines = []
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    found = available(make("mlp", "digits", None), list(METHODS.values()), Said())
    assert {method.name for method in found} == {name for name, method in METHODS.items() if not method.needs}
    assert [line.split(":")[0]
            for line in lines] == ["without schedule-free", "without soap", "without shampoo"]
    with pytest.raises(ExperimentError, match="method soap needs pytorch-optimizer"):
        BenchSettings(methods=("emsa", "soap"))


def started(task, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return task.build()


def test_the_rate_falls_linearly_to_zero():
    task = make("mlp", "digits", None)
    one = Racer(task, METHODS["sgd-momentum"], 0.1, 0, 4)
    seen = []
    run_race(task, [one], 0, lambda done, loss: seen.append(one.trainer.optimizer.param_groups[0]["lr"]))
    assert seen == pytest.approx([0.1, 0.075, 0.05, 0.025])


def test_a_racer_that_diverges_stops_and_says_why():
    task = make("mlp", "digits", None)
    one = Racer(task, METHODS["sgd-momentum"], 1e12, 0, 8)
    run_race(task, [one], 0, silent)
    assert one.stopped
    assert len(one.seconds) < 8
    assert badness(one) == float("inf")


def finished(name: str, seconds: list[float], losses: dict[int, float], scores: dict[int, float]) -> Racer:
    one = Racer(make("mlp", "digits", None), METHODS[name], 0.1, 0, len(seconds))
    one.seconds, one.losses, one.scores, one.ended = seconds, losses, scores, "complete"
    return one


def test_ratios_are_adams_seconds_over_ours():
    task = make("cnn", "digits", None)
    adam = finished("adam", [1.0, 2.0, 3.0, 4.0], {1: 1.0, 2: 0.5, 3: 0.2, 4: 0.1}, {2: 0.5, 4: 0.975})
    emsa = finished("emsa", [1.5, 3.0, 4.5, 6.0], {1: 0.4, 2: 0.2, 3: 0.1, 4: 0.05}, {2: 0.97, 4: 0.99})
    result = summarize(task, [[emsa, adam]], {"emsa": 150, "adam": 100})["emsa"]
    assert result["cost"]["median"] == 1.5
    assert result["memory"] == 1.5
    assert result["to_loss"]["0.2"]["adam_over_this"]["median"] == pytest.approx(3.0 / 3.0)
    assert result["to_loss"]["0.1"]["adam_over_this"]["median"] == pytest.approx(4.0 / 4.5)
    assert result["to_loss"]["0.05"]["adam_over_this"]["median"] is None
    assert result["to_score"]["0.97"]["iterations"]["median"] == 2
    assert result["loss_when_adam_ends"]["median"] == 0.2


def test_the_command_writes_a_table_and_a_report(tmp_path, capsys):
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as ended:
        main(["bench", "optimizers", "--task", "mlp", "--methods", "emsa,adam", "--seeds", "1",
              "--iterations", "5",
              "--tune", "2", "--out", str(out)])
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert "emsa" in printed
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 10
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["tuning"]["adam"]) == {str(rate) for rate in METHODS["adam"].rates}
    assert summary["results"]["emsa"]["memory"] > 0
    assert len(table(summary)) == 3
    assert len(table(summary)[0]) == 6, "after five iterations no target has been reached"
    summary["results"]["adam"]["to_loss"]["0.2"]["iterations"]["median"] = 4
    summary["results"]["adam"]["to_loss"]["0.2"]["seconds"]["median"] = 0.5
    assert [row[4] for row in table(summary)] == ["loss 0.2", "—", "4 it, 0.5 s"]
    assert_drawn_again(out)
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"tune": -1}, {"iterations": 0}, {"methods": ("lion",)}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ExperimentError):
        BenchSettings(**wrong)


def test_an_unknown_task_or_data_set_is_named():
    with pytest.raises(ExperimentError, match="'gan'"):
        make("gan", "digits", None)
    with pytest.raises(ExperimentError, match="'imagenet'"):
        make("cnn", "imagenet", None)
