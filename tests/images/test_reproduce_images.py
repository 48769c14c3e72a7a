import csv
import json
from dataclasses import replace

import pytest
import torch

from pontryagin.cli import main
from pontryagin.papers.images.experiment import Request, run_images
from pontryagin.papers.images.paper import FIGURES, OURS
from pontryagin.papers.images.report import running_loss
from pontryagin.papers.images.tuning import best, shortened
from pontryagin.papers.images.wall_clock import clock_figure, csv_rows, goals_of
from pontryagin.run import parts
from pontryagin.run.callbacks import ProgressDisplay
from pontryagin.run.data import Images
from pontryagin.run.errors import ExperimentError
from pontryagin.run.files import Table
from pontryagin.run.history import COLUMNS
from pontryagin.run.settings import RunSettings
from pontryagin.run.tables import read_table

SMALL = {"layers": 1, "channels": 2}
OTHERS = Images(torch.ones(30, 1, 8, 8).tril(), torch.arange(30) % 10, torch.ones(10, 1, 8, 8),
                torch.arange(10))
"""In the place of those of `_few_images`."""


@pytest.fixture(autouse=True)
def _few_images(monkeypatch):
    """Forty images in the place of MNIST's."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(40, 1, 8, 8, generator=generator), torch.arange(40) % 10
    monkeypatch.setattr(parts, "load_images", lambda name,
                        folder: Images(images[:30], labels[:30], images[30:], labels[30:]))


def wanted(out, name: str = "mnist", methods: tuple[str, ...] = ("emsa-paper", "emsa", "adam"),
           **others) -> Request:
    settings = RunSettings(out=out, methods=methods, iterations=4, batch_size=10, evaluations=2, threads=1)
    return Request(name, replace(settings, **others), paper_iterations=2, tune=2, model=SMALL)


def test_a_run_has_tuned_rates_the_limit_and_the_paper_beside_it(tmp_path):
    outcome = run_images(wanted(tmp_path / "run"), "pontryagin reproduce mnist", ProgressDisplay())
    assert not outcome.interrupted
    scores = json.loads((tmp_path / "tuning-mnist-2.json").read_text())["scores"]
    assert set(scores) == {"emsa-paper", "adam"}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["experiment"] == "mnist"
    assert summary["paper"]["Figure 2"]["emsa"]["test_accuracy"] == 0.987
    methods = next(iter(summary["results"].values()))
    assert {name: found["iterations"]
            for name, found in methods.items()} == {"emsa-paper": 2, "emsa": 4, "adam": 4}
    assert f"{methods['adam']['learning_rate']:g}" == min(scores["adam"], key=scores["adam"].get)
    assert next(iter(summary["tuning"].values()))["adam"].keys() == scores["adam"].keys()
    page = (tmp_path / "run" / "report.html").read_text()
    for words in ("Figure 2: MNIST", "98.70 %", "Iteration by iteration", "tuned on a grid",
                  "Learning rates tried"):
        assert words in page
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "emsa-paper"]
    assert [row["iteration"] for row in rows] == ["0", "1", "2"]
    assert float(rows[1]["rho"]) > 0


def test_the_tuning_is_reused_and_another_is_refused(tmp_path, monkeypatch):
    first = wanted(tmp_path / "first", methods=("adam",))
    run_images(first, "", ProgressDisplay())

    def fail(*arguments):
        raise AssertionError("tuned again")
    monkeypatch.setattr("pontryagin.papers.images.tuning.score_training", fail)
    run_images(wanted(tmp_path / "second", "wall-clock", ("adam", "emsa")), "", ProgressDisplay())
    assert (tmp_path / "second"
            / "wall-clock.csv").read_text().startswith("method,goal,value,iteration,seconds\n")
    assert (tmp_path / "second" / "figures" / "wall-clock.png").exists()
    with pytest.raises(ExperimentError, match="differs in iterations"):
        run_images(replace(wanted(tmp_path / "third", methods=("adam",)), tune=3,
                           tuning=tmp_path / "tuning-mnist-2.json"), "",
                   ProgressDisplay())
    with pytest.raises(AssertionError, match="tuned again"):  # by another budget, beside the first
        run_images(replace(wanted(tmp_path / "third", methods=("adam",)), tune=3), "", ProgressDisplay())
    with monkeypatch.context() as patch:
        patch.setattr(parts, "load_images", lambda *_: OTHERS)
        with pytest.raises(ExperimentError, match="differs in training data"):
            run_images(wanted(tmp_path / "fourth", methods=("adam",)), "", ProgressDisplay())
    (tmp_path / "tuning-mnist-2.json").write_text("{}")
    with pytest.raises(ExperimentError, match="cannot be read"):
        run_images(wanted(tmp_path / "fourth", methods=("adam",)), "", ProgressDisplay())
    assert not (tmp_path / "fourth").exists()


def test_rates_of_the_user_stand(tmp_path):
    run_images(wanted(tmp_path / "run", methods=("adam",), rates={"adam": 0.004}), "", ProgressDisplay())
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert next(iter(summary["results"].values()))["adam"]["learning_rate"] == 0.004
    assert not (tmp_path / "tuning-mnist-2.json").exists()


def test_resume_goes_on_with_the_runs_own_settings(tmp_path, monkeypatch):
    whole = wanted(tmp_path / "whole", methods=("adam",))
    run_images(whole, "", ProgressDisplay())
    again = wanted(tmp_path / "whole", methods=("adam",), iterations=9, resume=True)
    assert not run_images(again, "", ProgressDisplay()).interrupted
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert next(iter(summary["results"].values()))["adam"]["iterations"] == 4
    assert "Learning rates tried" in (tmp_path / "whole" / "report.html").read_text()
    with pytest.raises(ExperimentError, match="not on fashion-mnist"):
        run_images(replace(again, name="fashion-mnist"), "", ProgressDisplay())
    monkeypatch.setattr(parts, "load_images", lambda *_: OTHERS)
    with pytest.raises(ExperimentError, match="not as when the run began: training data"):
        run_images(again, "", ProgressDisplay())


def test_the_best_rate_and_the_budget():
    assert best({"adam": {0.1: 2.0, 0.01: -1.0}, "sgd": {1.0: float("inf"), 0.3: 4.0}}) == {"adam": 0.01,
                                                                                            "sgd": 0.3}
    with pytest.raises(ExperimentError, match=r"sgd diverged.*\(1, 0\.3\)"):
        best({"sgd": {1.0: float("inf"), 0.3: float("inf")}})
    assert (shortened("adam", 150), shortened("emsa-paper", 150), shortened("emsa-paper", 3)) == (150, 15, 3)


def test_seconds_to_goals_come_from_the_results():
    reached = {"0.2": {"median": 30.0}, "0.1": {"median": None}}
    seconds = {"0.2": {"median": 1.5}, "0.1": {"median": None}}
    goals = goals_of({"emsa": {"iterations_to": reached, "seconds_to": seconds,
                               "accuracy_to": {"0.97": {"iterations": 40.0, "seconds": 2.0}}}})
    assert goals["emsa"]["loss", 0.2] == (30.0, 1.5)
    assert goals["emsa"]["loss", 0.1] is None
    assert goals["emsa"]["accuracy", 0.97] == (40.0, 2.0)
    assert csv_rows(goals)[1] == ["emsa", "loss", "0.2", "30.0", "1.5"]
    assert csv_rows(goals)[2] == ["emsa", "loss", "0.1", "", ""]


def test_the_running_loss_at_an_iteration(tmp_path):
    lines = [",".join(COLUMNS)]
    for iteration, loss in enumerate(["", 2.0, 1.0, 3.0]):
        cells = {"figure": "x", "method": "adam", "seed": 0, "iteration": iteration, "batch_loss": loss}
        lines.append(",".join(str(cells.get(column, "")) for column in COLUMNS))
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n")
    metrics = read_table(tmp_path / "metrics.csv", COLUMNS[:2], COLUMNS[2:])
    expected = (0.9 * 2.0 + 1.0) / 1.9
    assert running_loss(metrics, "adam", 2) == pytest.approx(expected)
    assert running_loss(metrics, "adam", 4) is None


def test_the_end_of_every_method_is_seen_in_the_figure_of_seconds(tmp_path):
    with Table(tmp_path / "metrics.csv", COLUMNS) as table:
        for method, ends_at in (("emsa", 0.97), ("adam", 0.9), ("sgd", 0.8)):
            for seconds in (1.0, 2.0, 3.0):
                cells = {"seed": 0, "iteration": seconds, "seconds": seconds, "train_loss": 1.0,
                         "test_accuracy": ends_at * seconds / 3}
                table.add("a", method, *(cells.get(column) for column in COLUMNS[2:]))
    axes = clock_figure(tmp_path).figure.axes[1]
    ends = [float(line.get_ydata()[-1]) for line in axes.lines if len(line.get_xdata()) == 3]
    assert sorted(ends) == pytest.approx([80, 90, 97])
    assert axes.get_ylim()[0] <= 79


def test_every_figure_names_methods_that_stand_beside_ours():
    for figure in FIGURES.values():
        assert set(figure.values) <= set(OURS.values())


@pytest.mark.parametrize(("options", "message"), [
    (["--methods", "emsa,lamb"], "'lamb'"), (["--seeds", "0"], "--seeds"),
    (["--paper-iterations", "0"], "--paper-iterations"), (["--tune", "-1"], "--tune"),
    (["--dtype", "float8"], "--dtype"), (["--overwrite", "--resume"], "--overwrite")])
def test_a_wrong_request_is_refused_in_one_line(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "mnist", "--out", str(tmp_path / "run"), *options])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
