"""The panel as a command: rows, resumed and done anew, and its reports."""

import csv
import json
from dataclasses import replace

import pytest
import torch

from pontryagin.bench.panel import experiment, prices
from pontryagin.bench.panel.experiment import PanelSettings, run_panel
from pontryagin.bench.panel.networks import NETWORKS
from pontryagin.bench.panel.rows import COLUMNS, FILE, read
from pontryagin.cli import main
from pontryagin.run.errors import ExperimentError
from pontryagin.run.progress import Progress
from pontryagin.run.race import Run

TINY = {"networks": ("regression",), "methods": ("adamw",), "seconds": 0.006, "seeds": 2, "tuning": ("rate",)}


@pytest.fixture
def trained(monkeypatch):
    """The trials that were run, not found."""
    found, real = [], experiment.train

    def train(trial, work, advance):
        found.append(trial)
        return real(trial, work, advance)

    monkeypatch.setattr(experiment, "train", train)
    return found


def go(out, **others):
    return run_panel(PanelSettings(**TINY | {"out": out} | others), "pontryagin bench panel", Progress())


def test_nothing_is_run_twice_and_what_is_told_is_run_anew(tmp_path, trained):
    out = tmp_path / "run"
    first = go(out)
    assert not first.interrupted
    before, number = read(out / FILE), len(trained)
    assert list(before) == trained
    assert go(out, resume=True).contests == first.contests
    assert len(trained) == number
    with (out / FILE).open("a") as file:
        file.write("regression,adamw,0,torn")  # by a process that was killed
    go(out, resume=True)
    assert read(out / FILE) == before
    go(out, resume=True, redo="emsa,emsa-tuned")
    anew = trained[number:]
    assert {one.method for one in anew} == {"emsa"}
    after = read(out / FILE)
    assert {one: found for one, found in after.items() if one.method == "adamw"} == {
        one: found for one, found in before.items() if one.method == "adamw"}
    assert [found.loss for one, found in after.items() if one.method == "emsa"] == [
        found.loss for one, found in before.items() if one.method == "emsa"], "equal runs are equal"


def test_an_interrupted_panel_goes_on(tmp_path, trained, monkeypatch):
    real = experiment.train

    def stopped(trial, work, advance):
        if len(trained) == 4:
            raise KeyboardInterrupt
        return real(trial, work, advance)

    monkeypatch.setattr(experiment, "train", stopped)
    assert go(tmp_path / "run").interrupted
    assert len(read(tmp_path / "run" / FILE)) == 4
    monkeypatch.setattr(experiment, "train", real)
    assert not go(tmp_path / "run", resume=True).interrupted
    assert len(trained) == len(set(trained))


def test_shares_are_reported_together(tmp_path):
    networks = ("regression", "regression-x1000")
    for share in ("1/2", "2/2"):
        go(tmp_path / share[0], networks=networks, share=share)
    found = go(tmp_path, networks=networks, report_only=True)
    assert list(found.contests) == list(networks)
    assert found.unfinished == []
    found = go(tmp_path, networks=(*networks, "linear"), report_only=True)
    assert found.unfinished == ["linear"]
    with pytest.raises(ExperimentError, match="all runs of at least one network"):
        go(tmp_path, networks=networks, report_only=True, seconds=1.0)
    (tmp_path / "3").mkdir()
    with pytest.raises(ExperimentError, match="none"):
        go(tmp_path / "3", report_only=True)


def test_runs_of_another_network_or_other_data_are_not_mixed(tmp_path, trained, monkeypatch):
    go(tmp_path / "1")
    before, number = (tmp_path / "1" / FILE).read_bytes(), len(trained)
    one = NETWORKS["regression"]

    def other(folder):
        work = one.work(folder)
        return replace(work, build=lambda: torch.nn.Sequential(work.build(), torch.nn.Softplus()))

    monkeypatch.setitem(NETWORKS, "regression", replace(one, work=other))
    with pytest.raises(ExperimentError, match="runs of regression with seed 1000 began at a loss of"):
        go(tmp_path / "1", resume=True, seeds=3)
    assert (tmp_path / "1" / FILE).read_bytes() == before
    assert len(trained) == number
    go(tmp_path / "2")
    with pytest.raises(ExperimentError, match="data or network are not the same"):
        go(tmp_path, report_only=True)


def test_regret_uses_the_runs_of_the_tuning(tmp_path, trained):
    go(tmp_path / "run")
    number = len(trained)
    found = go(tmp_path / "run", resume=True, regret=True).regrets["regression"]
    assert [one.rate for one in trained[number:]] == [0.06]
    assert found["regret"] >= 1
    assert go(tmp_path / "run", report_only=True).contests.keys() == {"regression"}
    assert len(found["losses"]) == 5


def test_the_command_writes_tables_a_picture_and_a_page(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(prices, "SECONDS", 0.01)
    out = tmp_path / "run"
    for options in (["--seconds", "0.004", "--tuning", "rate"], ["--prices", "--overwrite"]):
        with pytest.raises(SystemExit) as ended:
            main(["bench", "panel", "--networks", "regression-over-1000", "--seeds", "1", "--out", str(out),
                  "--methods", "adamw", *options])
        assert not ended.value.code
        printed = capsys.readouterr().out
        summary = json.loads((out / "summary.json").read_text())
        assert not summary["interrupted"]
        text = (out / "report.md").read_text()
        if "--prices" in options:
            assert "Prices by size" in printed
            assert "| below 5 ms | 1 |" in text
            with (out / "prices.csv").open() as file:
                ratios = [row["ratio"] for row in csv.DictReader(file)]
                assert [ratio == "1.0" for ratio in ratios] == [True, False, False]
        else:
            assert "EMSA with its rate found" in printed
            assert "data:image/png;base64," in (out / "report.html").read_text()
            with (out / FILE).open() as file:
                assert tuple(next(csv.reader(file))) == COLUMNS
    with pytest.raises(SystemExit):
        main(["bench", "panel", "--list"])
    assert "cnn (the paper's CNN), tuned on" in capsys.readouterr().out


def test_a_run_that_breaks_off_is_a_row_and_loses(tmp_path, monkeypatch):
    real = Run.iterate

    def iterate(run):
        if run.method.name == "muon" and run.iteration == 3:
            raise torch.linalg.LinAlgError("did not converge")
        return real(run)

    monkeypatch.setattr(Run, "iterate", iterate)
    found = go(tmp_path / "run", methods=("adamw", "muon")).contests["regression"]
    assert found["best_rival"] == "adamw"
    assert found["failed"]["muon"] == ["not finite: did not converge"] * 2
    muon = [outcome for trial, outcome in read(tmp_path / "run" / FILE).items() if trial.method == "muon"]
    assert all(outcome.loss == float("inf") for outcome in muon)
    assert len(muon) == 2 + 5 + 4, "the grid moves down from a rate that fails, and gives up"


@pytest.mark.parametrize(("wrong", "said"), [
    ({"networks": ("gan",)}, "unknown network 'gan'"),
    ({"methods": ("adagrad",)}, "unknown method 'adagrad'"),
    ({"tuning": ("betas",)}, "unknown tuning 'betas'"), ({"share": "3/2"}, "--share"),
    ({"seconds": 0.0}, "--seconds"), ({"redo": "emsa"}, "--resume"), ({"seeds": 0}, "seeds"),
    ({"redo": "lion", "resume": True}, "unknown method 'lion'")])
def test_wrong_settings_are_refused(wrong, said):
    with pytest.raises(ExperimentError, match=said):
        PanelSettings(**wrong)


def test_a_file_that_is_no_panels_is_refused(tmp_path):
    (tmp_path / FILE).write_text("a,b\n1,2\n")
    with pytest.raises(ExperimentError, match="expected the columns"):
        go(tmp_path, resume=True)


def test_data_that_is_not_there_leaves_no_folder(tmp_path):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "panel", "--networks", "mlp-2", "--folder", str(tmp_path / "none"), "--out",
              str(tmp_path / "run")])
    assert not list(tmp_path.iterdir())
