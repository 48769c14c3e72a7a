"""A run as a whole: what it leaves, that it goes on bitwise, and what it refuses."""

import csv
import json
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tasks import classification, regression
from torch import Tensor

from pontryagin.cli import main
from pontryagin.run import checkpoint
from pontryagin.run.callbacks import ProgressDisplay
from pontryagin.run.errors import ExperimentError
from pontryagin.run.evaluation import Point
from pontryagin.run.history import COLUMNS
from pontryagin.run.objective import Objective
from pontryagin.run.race import Run
from pontryagin.run.samples import TensorSamples
from pontryagin.run.settings import RunSettings
from pontryagin.run.task import Task
from pontryagin.run.training import Outcome, run_training
from redrawn import assert_drawn_again


class StoppingDisplay(ProgressDisplay):
    """Ctrl-C, or a polite kill, when so many iterations have been shown."""

    def __init__(self, at: int, number: signal.Signals = signal.SIGINT) -> None:
        self.at, self.number, self.seen, self.said = at, number, 0, []

    def after(self, one: Run, point: Point) -> None:
        self.seen += 1
        if self.seen == self.at:
            signal.raise_signal(self.number)

    def say(self, text: str) -> None:
        self.said.append(text)


def run(task: Task, out: Path, display: ProgressDisplay | None = None, **settings: Any) -> Outcome:
    return run_training(task, RunSettings(out=out, **({"epochs": 3, "batch_size": 20} | settings)),
                        "a command", display or ProgressDisplay())


@pytest.fixture(autouse=True)
def _reports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than these runs: only tests of the report draw."""
    if "drawn" not in request.keywords:
        monkeypatch.setattr("pontryagin.run.reports.training.write_report", lambda out,
                            context: out / "report.html")


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def untimed(out: Path) -> list[dict[str, str]]:
    return [{name: cell for name, cell in row.items() if name != "seconds"} for row in rows(out)]


def models(out: Path) -> dict[str, dict[str, Tensor]]:
    return {path.stem: checkpoint.read(path)["model"] for path in sorted((out / "models").glob("*.pt"))}


def assert_equal_models(one: Path, other: Path) -> None:
    first, second = models(one), models(other)
    assert first.keys() == second.keys()
    for name, state in first.items():
        for key, value in state.items():
            assert torch.equal(value, second[name][key]), (name, key)


@pytest.mark.drawn
def test_a_run_leaves_what_is_documented(tmp_path):
    outcome = run(classification(), tmp_path / "run", methods=("emsa", "adam"), seeds=(0, 1))
    assert not outcome.interrupted
    assert {path.name for path in outcome.out.iterdir()} == {
        ".lock", "metrics.csv", "summary.json", "report.html", "figures", "models", "checkpoint.pt",
        "checkpoint.previous.pt"}
    table = rows(outcome.out)
    assert tuple(table[0]) == COLUMNS
    assert len(table) == 2 * 2 * (1 + 15)
    assert sum(bool(row["train_loss"]) for row in table) == 2 * 2 * (1 + 10)
    summary = json.loads((outcome.out / "summary.json").read_text())
    assert summary["state"] == "complete"
    result = summary["results"]["small"]["adam"]
    last = [float(row["test_accuracy"])
            for row in table if row["method"] == "adam" and row["iteration"] == "15"]
    assert result["test_accuracy"]["median"] == pytest.approx(sum(last) / 2)
    assert set(models(outcome.out)) == {"adam-seed0", "adam-seed1", "emsa-seed0", "emsa-seed1"}
    page = (outcome.out / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "Not finished" not in page
    text = re.sub('data:image/png;base64,[^"]+', "", page)  # in which http may come up by chance
    assert "http" not in text.replace("http-equiv", "")


def test_scores_are_those_of_the_controls_reached(tmp_path):
    task = classification()
    out = run(task, tmp_path / "run", methods=("sgd",)).out
    model = task.build().eval()
    model.load_state_dict(models(out)["sgd-seed0"])
    inputs, targets = task.test.rows(torch.arange(len(task.test)))
    output = model(inputs)
    last = rows(out)[-1]
    assert float(last["test_loss"]) == pytest.approx(torch.nn.functional.cross_entropy(output,
                                                                                       targets).item(),
                                                     rel=1e-6)
    assert float(last["test_accuracy"]) == pytest.approx((output.argmax(1) == targets).float().mean().item())


def test_equal_weights_and_batches_for_every_method(tmp_path):
    table = rows(run(classification(), tmp_path / "run", methods=("emsa", "adam", "sgd")).out)
    for iteration in ("0", "1"):
        found = {(row["train_loss"], row["batch_loss"]) for row in table if row["iteration"] == iteration}
        assert len({losses[int(iteration)] for losses in found}) == 1


@pytest.mark.parametrize("task", [classification, regression])
def test_turns_do_not_disturb_each_other(tmp_path, task: Callable[[], Task]):
    together = run(task(), tmp_path / "together", methods=("emsa", "adam")).out
    for method in ("emsa", "adam"):
        run(task(), tmp_path / method, methods=(method,))
        alone = [row for row in untimed(together) if row["method"] == method]
        assert untimed(tmp_path / method) == alone


@pytest.mark.parametrize("at", [1, 7, 16, 30, 31, 45, 59])
def test_stopped_and_resumed_is_bitwise_the_whole(tmp_path, at, whole_run):
    settings = {"methods": ("emsa", "adam"), "seeds": (0, 1)}
    display = StoppingDisplay(at, signal.SIGTERM if at % 2 else signal.SIGINT)
    first = run(classification(), tmp_path / "run", display, checkpoint_every=100.0, **settings)
    assert first.interrupted
    assert json.loads((first.out / "summary.json").read_text())["state"] == "interrupted"
    assert display.seen == at
    second = run(classification(), tmp_path / "run", resume=True, **settings)
    assert not second.interrupted
    assert untimed(second.out) == untimed(whole_run)
    assert_equal_models(second.out, whole_run)
    seconds = [float(row["seconds"])
               for row in rows(second.out) if row["method"] == "adam" and row["seed"] == "1"]
    assert seconds == sorted(seconds)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(classification(), tmp_path_factory.mktemp("whole") / "run", methods=("emsa", "adam"),
               seeds=(0, 1)).out


def test_tuning_goes_on_too(tmp_path):
    settings = {"methods": ("sgd", "adam"), "tune": 4}
    whole = run(classification(), tmp_path / "whole", **settings)

    class Interrupting(StoppingDisplay):
        def say(self, text: str) -> None:
            super().say(text)
            if sum("scores" in one for one in self.said) == 3:
                signal.raise_signal(signal.SIGINT)

    assert run(classification(), tmp_path / "run", Interrupting(10**9), **settings).interrupted
    display = StoppingDisplay(10**9)
    run(classification(), tmp_path / "run", display, resume=True, **settings)
    assert sum("scores" in text for text in display.said) == 5
    assert untimed(tmp_path / "run") == untimed(whole.out)
    tuning = json.loads((tmp_path / "run" / "summary.json").read_text())["tuning"]["small"]
    assert {method: len(scores) for method, scores in tuning.items()} == {"sgd": 4, "adam": 4}


def test_rates_are_found_by_pilots_which_go_on_too(tmp_path):
    settings = {"methods": ("emsa", "sgd"), "find": True, "batch_size": 10}
    whole = run(classification(), tmp_path / "whole", **settings)

    class Interrupting(StoppingDisplay):
        def say(self, text: str) -> None:
            super().say(text)
            if sum("after" in one for one in self.said) == 3:
                signal.raise_signal(signal.SIGINT)

    assert run(classification(), tmp_path / "run", Interrupting(10**9), **settings).interrupted
    display = StoppingDisplay(45)  # in the race, by when all rates are known
    assert run(classification(), tmp_path / "run", display, resume=True, **settings).interrupted
    assert sum("after" in text for text in display.said) == 7 + 6 - 3
    display = StoppingDisplay(10**9)
    run(classification(), tmp_path / "run", display, resume=True, **settings)
    assert not any("after" in text for text in display.said), "nothing is repeated"
    assert untimed(tmp_path / "run") == untimed(whole.out)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    pilots, rates = summary["pilots"]["small"], summary["settings"]["rates"]
    assert [(one["rate"], one["iterations"]) for one in pilots["emsa"][:5]] == [
        (rate, 10) for rate in (0.003, 0.01, 0.03, 0.06, 0.1)]
    for method, result in summary["results"]["small"].items():
        ends = {one["rate"]: sum(one["losses"][-4:]) for one in pilots[method] if one["iterations"] == 20}
        assert rates[method] == result["learning_rate"] == min(ends, key=ends.get)


@pytest.mark.drawn
def test_pilots_are_no_longer_than_the_run_and_take_its_weights_and_batches(tmp_path):
    found = run(classification(), tmp_path / "found", find=True, iterations=6)
    summary = json.loads((found.out / "summary.json").read_text())
    pilots, rate = summary["pilots"]["small"]["emsa"], summary["settings"]["rates"]["emsa"]
    assert [one["iterations"] for one in pilots] == [6] * 5
    page = (found.out / "report.html").read_text()
    assert "Learning rates found" in page
    assert "5 pilots: 30 iterations, 30 forward and 30 backward passes" in page
    assert (found.out / "figures" / "pilots.png").exists()
    given = run(classification(), tmp_path / "given", rates={"emsa": rate}, iterations=6)
    assert "Learning rates found" not in (given.out / "report.html").read_text()
    assert untimed(found.out) == untimed(given.out)
    losses = next(one["losses"] for one in pilots if one["rate"] == rate)
    assert [float(row["batch_loss"]) for row in rows(given.out)[1:]] == losses


def test_when_every_rate_fails_one_line_says_so(tmp_path):
    task = classification()
    broken = replace(task, train=TensorSamples(task.train.inputs * 1e30, task.train.targets),
                     objective=Objective(
        "infinite", lambda output, target: output.square().sum(1) * 1e38, classifies=False))
    with pytest.raises(ExperimentError,
                       match=r"emsa: no learning rate of 0.003, 0.01, .* keeps the loss finite"):
        run(broken, tmp_path / "run", find=True)


@pytest.mark.drawn
def test_the_page_of_a_stopped_run_says_how_to_go_on(tmp_path):
    out = run(classification(), tmp_path / "run", StoppingDisplay(12)).out
    page = (out / "report.html").read_text()
    assert "Not finished" in page
    assert f"pontryagin train --resume --out {out}" in re.sub("<[^>]*>", "", page)


@pytest.mark.drawn
def test_a_page_is_drawn_again_of_what_ended_without_last_words(tmp_path, capsys):
    """As kill -9 leaves it: an old summary, newer rows, no page."""
    out = run(classification(), tmp_path / "run", StoppingDisplay(12), methods=("emsa", "adam")).out
    assert_drawn_again(out)
    path = out / "summary.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"state": "running", "results": {"small": {}}}))
    (out / "report.html").unlink()
    with pytest.raises(SystemExit) as ended:
        main(["report", str(out)])
    assert not ended.value.code
    assert json.loads(path.read_text()) == whole
    page = (out / "report.html").read_text()
    assert "The run was stopped before its end" in page


@pytest.mark.drawn
@pytest.mark.parametrize(("content", "told"), [
    (None, "expected the folder of a run, with its summary.json, found none there"),
    ("{", "expected JSON"), ("[]", "expected the name of an experiment"),
    ('{"experiment": "trian"}', "did you mean train?"),
    ('{"experiment": "train", "command": "", "interrupted": true, "results": {}}', "has been changed"),
    ('{"experiment": "audit", "results": {"stages": 3}}', "not those of an audit")])
def test_a_folder_without_a_run_has_no_page(content, told, tmp_path, capsys):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path)])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert told in printed.err.replace("have been", "has been")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_a_run_that_is_going_on_draws_its_page_itself(tmp_path, capsys):
    class Asking(ProgressDisplay):
        def after(self, one: Run, point: Point) -> None:
            assert json.loads((tmp_path / "run" / "summary.json").read_text())["state"] == "running"
            with pytest.raises(SystemExit) as ended:
                main(["report", str(tmp_path / "run")])
            assert ended.value.code == 2

    run(classification(), tmp_path / "run", Asking(), iterations=1)
    assert "another process is running in this folder" in capsys.readouterr().err


def test_resuming_what_is_complete_changes_nothing(tmp_path):
    out = run(classification(), tmp_path / "run").out
    before = {path: path.read_bytes() for path in (out / "metrics.csv", out / "models" / "emsa-seed0.pt")}
    assert not run(classification(), out, resume=True).interrupted
    for path, content in before.items():
        assert path.read_bytes() == content


def test_a_damaged_checkpoint_leaves_the_one_before(tmp_path, whole_run):
    settings = {"methods": ("emsa", "adam"), "seeds": (0, 1)}
    out = run(classification(), tmp_path / "run", StoppingDisplay(40), checkpoint_every=0.0, **settings).out
    content = bytearray((out / "checkpoint.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (out / "checkpoint.pt").write_bytes(content)
    display = StoppingDisplay(10**9)
    run(classification(), out, display, resume=True, **settings)
    assert "checksum" in display.said[0]
    assert untimed(out) == untimed(whole_run)
    assert_equal_models(out, whole_run)


def test_targets_end_a_run(tmp_path):
    out = run(classification(), tmp_path / "loss", epochs=50, evaluations=250, methods=("adam",),
              target_loss=0.9).out
    last = rows(out)[-1]
    assert float(last["train_loss"]) <= 0.9
    assert int(last["iteration"]) < 250
    out = run(classification(), tmp_path / "accuracy", epochs=50, evaluations=250, methods=("adam",),
              target_accuracy=0.7).out
    assert float(rows(out)[-1]["test_accuracy"]) >= 0.7
    with pytest.raises(ExperimentError, match="--target-accuracy"):
        run(regression(), tmp_path / "none", target_accuracy=0.7)
    assert not (tmp_path / "none").exists()


def test_a_limit_stops_one_method_on_the_schedule_of_all(tmp_path):
    settings = {"methods": ("sgd", "adam")}
    whole = rows(run(classification(), tmp_path / "whole", **settings).out)
    short = rows(run(classification(), tmp_path / "short", limits={"adam": 4}, **settings).out)
    cut = [row["batch_loss"] for row in short if row["method"] == "adam"]
    assert cut == [row["batch_loss"] for row in whole if row["method"] == "adam"][:5]
    assert [row["batch_loss"] for row in short if row["method"] == "sgd"] == [
        row["batch_loss"] for row in whole if row["method"] == "sgd"]


@pytest.mark.drawn
def test_what_diverges_stops_alone_and_is_reported(tmp_path):
    out = run(regression(), tmp_path / "run", methods=("sgd", "adam"), rates={"sgd": 1e30}).out
    summary = json.loads((out / "summary.json").read_text())
    assert "not finite" in summary["diverged"]["small"]["sgd"][0]
    assert rows(out)[-1]["method"] == "adam"
    assert rows(out)[-1]["iteration"] == "15"
    assert "Stopped early" in (out / "report.html").read_text()


@pytest.mark.parametrize(("changed", "named"), [
    ({"epochs": 4}, "epochs: 3 then, 4 now"), ({"seeds": (0, 2)}, "seeds"),
    ({"rates": {"emsa": 0.1}}, "rates"), ({"dtype": "float64"}, "dtype"),
    ({"schedule": "cosine"}, "schedule")])
def test_other_settings_are_not_resumed(tmp_path, changed, named):
    run(classification(), tmp_path / "run", StoppingDisplay(3))
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    with pytest.raises(ExperimentError, match=named):
        run(classification(), tmp_path / "run", resume=True, **changed)
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == before


def test_another_task_or_version_is_not_resumed(tmp_path, monkeypatch):
    run(classification(), tmp_path / "run", StoppingDisplay(3))
    with pytest.raises(ExperimentError, match="outputs: 3 then, 4 now"):
        run(classification(classes=4), tmp_path / "run", resume=True)
    monkeypatch.setattr("pontryagin.__version__", "9.9")
    with pytest.raises(ExperimentError, match=r"was written with pontryagin .*, this is 9\.9"):
        run(classification(), tmp_path / "run", resume=True)


def test_a_changed_table_is_not_resumed(tmp_path):
    out = run(classification(), tmp_path / "run", StoppingDisplay(3)).out
    (out / "metrics.csv").write_text("figure,method\n")
    with pytest.raises(ExperimentError, match="has been changed"):
        run(classification(), out, resume=True)


def test_two_runs_do_not_share_a_folder(tmp_path):
    class Meddling(ProgressDisplay):
        def after(self, one: Run, point: Point) -> None:
            for options in ({"resume": True}, {"overwrite": True}):
                with pytest.raises(ExperimentError, match="another process"):
                    run(classification(), tmp_path / "run", **options)

    run(classification(), tmp_path / "run", Meddling(), iterations=2)


@pytest.mark.parametrize("wrong", [
    {"epochs": 0}, {"batch_size": 0}, {"batch_size": 101}, {"seeds": ()}, {"schedule": "steps"},
    {"dtype": "float8"}, {"methods": ("adan",)}, {"rates": {"adam": 0.0}}, {"rates": {"adan": 0.1}},
    {"target_accuracy": 98.0}, {"threads": 0}, {"options": {"emsa": {"dampin": 1.0}}}, {"device": "cuda:99"},
    {"device": "abacus"}, {"checkpoint_every": -1.0}, {"overwrite": True, "resume": True}])
def test_wrong_settings_are_refused_before_any_work(tmp_path, wrong):
    with pytest.raises(ExperimentError):
        run(classification(), tmp_path / "run", **wrong)
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_is_refused_before_any_work(tmp_path):
    task = classification()
    for wrong in (Task("x", lambda: torch.nn.Linear(5, 3), task.train, task.test, task.objective, {}),
                  Task("x", lambda: torch.nn.Tanh(), task.train, task.test, task.objective, {}),
                  Task("x", task.build, regression().train, task.test, task.objective, {})):
        with pytest.raises(ExperimentError, match=r"^x[:,] |^the network, called with"):
            run(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()
