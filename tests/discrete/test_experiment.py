"""`reproduce binary` and `ternary`, small, from the command line to the packed file."""

import csv
import json
from pathlib import Path

import pytest
import torch

from pontryagin.cli import main
from pontryagin.export import load_packed, whole_state, with_packed_weights
from pontryagin.papers.discrete.experiment import QUICK_EPOCHS, QUICK_WIDTH, DiscreteSettings
from pontryagin.papers.discrete.report import headline
from pontryagin.papers.discrete.weights import recalibrated, rounded_model
from pontryagin.problem.admissible import Binary, Ternary
from pontryagin.run.baselines import inside, split_parameters
from pontryagin.run.data.images import load_images
from pontryagin.run.errors import ExperimentError
from pontryagin.run.models import normalized_mlp
from pontryagin.run.samples import TensorSamples
from redrawn import assert_drawn_again


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", *arguments])
    return int(stop.value.code or 0)


def small(kind: str, out: Path, methods: str, *more: str) -> int:
    return command(kind, "--data", "digits", "--width", "24", "--epochs", "2", "--methods", methods,
                   "--out", str(out), *more)


def test_quick_leaves_what_was_asked_for(tmp_path: Path) -> None:
    quick = DiscreteSettings("binary", tmp_path, epochs=3, seeds=2).quick()
    assert (quick.data, quick.epochs, quick.width, quick.seeds) == ("digits", 3, QUICK_WIDTH, 2)
    assert DiscreteSettings("binary", tmp_path).quick().epochs == QUICK_EPOCHS


@pytest.mark.parametrize("kind", [pytest.param("binary", marks=pytest.mark.slow), "ternary"])
def test_from_the_command_line_to_equal_predictions(kind: str, tmp_path: Path) -> None:
    admissible, out = (Binary() if kind == "binary" else Ternary()), tmp_path / "run"
    methods = ["emsa", "li-hao", "binaryconnect"] + (["bop"] if kind == "binary" else [])
    assert small(kind, out, ",".join([*methods, "rounding"])) == 0
    digits = TensorSamples(load_images("digits").train, load_images("digits").train_labels)
    images = load_images("digits").test
    summary = json.loads((out / "summary.json").read_text())
    (results,) = summary["results"].values()
    assert results.keys() == {*methods, "adam"}
    for method in methods:
        saved = torch.load(out / "models" / f"{method}-seed0.pt", weights_only=True)["model"]
        model = normalized_mlp((1, 8, 8), 10, width=24)
        model.load_state_dict(saved)
        assert all(inside(weight, admissible) for weight in split_parameters(model)[0])
        state = load_packed(out / "models" / f"{method}-seed0.packed")
        assert all(torch.equal(value, saved[name]) for name, value in whole_state(state).items())
        with torch.no_grad():
            expected = model.eval()(images)
            assert torch.equal(with_packed_weights(normalized_mlp((1, 8, 8), 10, width=24), state)(images),
                               expected)
        right = (expected.argmax(1) == load_images("digits").test_labels).double().mean().item()
        assert results[method]["test_accuracy"]["median"] == pytest.approx(right)
        found = recalibrated(model, digits)(images).argmax(1)
        right = (found == load_images("digits").test_labels).double().mean().item()
        assert results[method]["recalibrated_error"] == [pytest.approx(100 * (1 - right))]
        assert 0 < results[method]["density"][0] <= 1
        assert results[method]["packed_bytes"] < sum(value.numel() for value in saved.values())
    assert [row["recalibrated"] for row in summary["rounded"]] == [False, True, False, True]
    assert {path.stem for path in (out / "figures").iterdir()} >= {"error", "flips"}
    assert "Rounding after training" in (out / "report.html").read_text()
    assert_drawn_again(out)
    with (out / "weights.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == set(methods)
    assert all(0 <= float(row["flips"]) <= 1 for row in rows)
    assert any(float(row["flips"]) > 0 for row in rows)


def test_weights_of_a_run_that_was_stopped_are_those_of_the_set() -> None:
    """Their density is known at the end alone; Adam's are real."""
    result = {"test_accuracy": {"min": 0.4, "median": 0.5, "max": 0.6}, "seconds_per_iteration": None,
              "iterations": 10}
    summary = {"results": {"digits": {"emsa": result, "adam": result}}, "settings": {"batch_size": 10},
               "samples": {"train": 100}}
    said = dict(zip(("emsa", "adam"), headline(summary), strict=True))
    assert "weights of the set" in said["emsa"]
    assert "real weights" in said["adam"]


def content(packed: Path) -> tuple[dict, bytes]:
    """Header and data: safetensors writes the entries of its metadata in any order."""
    raw = packed.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:end]), raw[end:]


@pytest.mark.slow
def test_resumed_run_is_the_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle as by Ctrl-C: same models, same tables."""
    from pontryagin.run import race
    assert small("ternary", tmp_path / "whole", "emsa,li-hao") == 0
    iterate, calls = race.Run.iterate, []

    def stopping(run):
        calls.append(run)
        if len(calls) == 25:
            import signal
            signal.raise_signal(signal.SIGINT)
        return iterate(run)

    monkeypatch.setattr(race.Run, "iterate", stopping)
    assert small("ternary", tmp_path / "parts", "emsa,li-hao") == 130
    assert "Not finished" in (tmp_path / "parts" / "report.html").read_text()
    assert command("binary", "--out", str(tmp_path / "parts"), "--resume") == 2
    assert command("ternary", "--out", str(tmp_path / "parts"), "--resume") == 0  # with its own settings
    assert (tmp_path / "parts" / "weights.csv").read_text() == (tmp_path / "whole"
                                                                / "weights.csv").read_text()
    for name in ("emsa-seed0.packed", "li-hao-seed0.packed"):
        assert content(tmp_path / "parts" / "models" / name) == content(tmp_path / "whole" / "models" / name)


@pytest.mark.parametrize(("arguments", "message"), [
    (["binary", "--methods", "li-hoa"], "unknown method of binary 'li-hoa'"),
    (["ternary", "--methods", "bop"], "unknown method of ternary 'bop'"),
    (["ternary", "--rates.adma", "0.1"], "unknown method 'adma'"),
    (["binary", "--epochs", "0"], "--epochs: expected"),
    (["binary", "--width", "0"], "--width: expected"),
    (["binary", "--quick", "--full"], "give one of them"),
    (["binary", "--data", "cifar"], "cifar"),
    (["binary", "--data", "digits", "--methods", "li-hao", "--options.li-hao.rho", "-1"], "rho >= 0"),
    (["binary", "--data", "digits", "--methods", "li-hao", "--options.li-hao.roh", "1"],
     "unknown option of li-hao 'roh'"),
    (["ternary", "--data", "digits", "--methods", "li-hao", "--options.li-hao.admissible", "ternary-rows"],
     "scale 1"),
])
def test_wrong_requests_before_any_work(arguments: list[str], message: str, tmp_path: Path,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*arguments, "--out", str(tmp_path / "run")) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_recalibration_averages_the_training_samples() -> None:
    torch.manual_seed(0)
    model, inputs = normalized_mlp((1, 4, 4), 3, width=8), torch.rand(300, 1, 4, 4)
    rounded = rounded_model(model, Binary())
    assert all(inside(weight, Binary()) for weight in split_parameters(rounded)[0])
    recalibrated(rounded, TensorSamples(inputs, torch.zeros(300, dtype=torch.long)))
    first = rounded[0][1](inputs.flatten(1))
    torch.testing.assert_close(rounded[0][2].running_mean, first.mean(0))
    assert rounded[0][2].momentum == 0.1
    assert not rounded.training


def test_settings_are_checked() -> None:
    with pytest.raises(ExperimentError, match="--seeds"):
        DiscreteSettings("binary", Path("x"), seeds=0)
    with pytest.raises(ExperimentError, match="unknown experiment"):
        DiscreteSettings("quaternary", Path("x"))
