import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from pontryagin.cli import main
from pontryagin.run import checkpoint

SHORT = ["--model", "mlp", "--model-args.depth", "1", "--model-args.width", "8", "--iterations", "6"]
OWN = '''
import torch
from torch import nn
from torch.utils.data import Dataset


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, x):
        return self.layers(x).squeeze(1)


class Points(Dataset):
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return self.samples

    def __getitem__(self, row):
        x = torch.tensor([row % 7, row % 5, row % 3], dtype=torch.float64) / 7
        return x + 0.1 * torch.randn(3, dtype=torch.float64), x.sum().sin()


def load(samples=60):
    return Points(samples), Points(20)


def absolute(output, target):
    return (output - target).abs()
'''


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("pontryagin.run.reports.training.write_report", lambda *_: None)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_code.py").write_text(OWN)
    monkeypatch.delitem(sys.modules, "own_code", raising=False)
    return "own_code"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_train_says_what_happened_and_predict_repeats_it(capsys):
    assert run("train", *SHORT) == 0
    printed = capsys.readouterr().out
    assert "test accuracy" in printed
    assert "samples/s" in printed
    assert run("predict", "runs/train", "--predictions", "predictions.csv") == 0
    printed = capsys.readouterr().out
    last = rows("runs/train/metrics.csv")[-1]
    accuracy = 100 * float(last["test_accuracy"])
    assert f"loss {float(last['test_loss']):.6g}, accuracy {accuracy:.2f} %, 297 samples" in printed
    table = rows("predictions.csv")
    assert list(table[0]) == ["row", "target", "prediction", "confidence"]
    right = sum(row["target"] == row["prediction"] for row in table)
    assert right / 297 == pytest.approx(float(last["test_accuracy"]))
    assert run("predict", "runs/train", "--predictions", "predictions.csv") == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_rate_is_found_recorded_and_kept_by_a_resume(capsys):
    assert run("train", *SHORT, "--lr", "find") == 0
    assert "emsa: learning rate 0." in capsys.readouterr().out
    summary = json.loads(Path("runs/train/summary.json").read_text())
    rate = summary["settings"]["rates"]["emsa"]
    assert rate == summary["results"]["mlp on digits"]["emsa"]["learning_rate"]
    assert run("train", "--resume", "--lr", "find") == 0
    assert run("train", "--resume") == 0
    assert "nothing is left to be run" in capsys.readouterr().out
    assert run("train", "--resume", "--lr", str(rate)) == 2
    assert "find: True there, False asked for" in capsys.readouterr().err
    assert run("train", *SHORT, "--lr", "fast", "--overwrite") == 2
    assert "--lr: expected a number or find, found 'fast'" in capsys.readouterr().err
    assert run("compare", *SHORT, "--methods", "emsa,adam", "--tune", "find", "--rates.adam", "0.01") == 0
    summary = json.loads(Path("runs/compare/summary.json").read_text())
    assert list(summary["pilots"]["mlp on digits"]) == ["emsa"]
    assert summary["settings"]["rates"].keys() == {"emsa", "adam"}


def test_compare_needs_a_name_to_predict(capsys):
    assert run("compare", *SHORT, "--methods", "emsa,adam", "--seeds", "2", "--rates.adam", "0.01", "--tune",
               "2") == 0
    summary = json.loads(Path("runs/compare/summary.json").read_text())
    assert summary["results"]["mlp on digits"]["adam"]["learning_rate"] == 0.01
    assert run("predict", "runs/compare") == 2
    assert "adam-seed0.pt" in capsys.readouterr().err
    assert run("predict", "runs/compare", "--method", "adam", "--seed", "1") == 0
    assert "adam, seed 1, 6 iterations" in capsys.readouterr().out
    assert run("predict", "runs/compare/models/emsa-seed0.pt", "--split", "train") == 0
    assert "1,500 samples" in capsys.readouterr().out


def test_own_code_and_a_file_never_names_code_alone(own, capsys):
    names = ["--model", f"{own}:Net", "--data", f"{own}:load", "--loss", f"{own}:absolute"]
    assert run("train", *names, "--model-args.width", "3", "--epochs", "3", "--batch-size", "20", "--method",
               "sgd") == 0
    assert "own_code:absolute" in Path("runs/train/summary.json").read_text()
    assert run("predict", "runs/train") == 2
    assert f"--model {own}:Net --data {own}:load --loss {own}:absolute" in capsys.readouterr().err
    assert run("train", "--resume") == 2
    assert f"--model {own}:Net" in capsys.readouterr().err
    assert run("train", "--resume", *names) == 0
    assert run("predict", "runs/train", *names, "--predictions", "p.csv") == 0
    assert list(rows("p.csv")[0]) == ["row", "target_0", "prediction_0"]


def test_random_data_sets_go_on_bitwise(own):
    common = ["--model", f"{own}:Net", "--data", f"{own}:load", "--epochs", "6", "--batch-size", "20",
              "--dtype", "float64"]
    assert run("train", *common, "--out", "whole") == 0
    original = nn.Linear.forward
    calls = iter(range(10**9))

    def forward(self: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        if next(calls) == 50:
            signal.raise_signal(signal.SIGINT)
        return original(self, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Linear, "forward", forward)
        assert run("train", *common, "--out", "stopped") == 130
    state = checkpoint.read(Path("stopped/checkpoint.pt"))["runs"][0]
    assert 0 < state["iteration"] < 18
    assert run("predict", "stopped/checkpoint.pt", *common[:4]) == 0
    assert run("train", *common[:4], "--out", "stopped", "--resume") == 0
    one, other = (checkpoint.read(Path(out) / "models" / "emsa-seed0.pt")["model"]
                  for out in ("whole", "stopped"))
    for name, value in one.items():
        assert value.dtype == torch.float64
        assert torch.equal(value, other[name])


def test_a_config_file_is_what_print_config_prints(capsys):
    assert run("train", *SHORT, "--method", "adam", "--lr", "0.01", "--print_config") == 0
    Path("settings.yaml").write_text(capsys.readouterr().out)
    assert run("train", "--config", "settings.yaml") == 0
    summary = json.loads(Path("runs/train/summary.json").read_text())
    assert summary["settings"]["iterations"] == 6
    assert summary["settings"]["rates"] == {"adam": 0.01}


@pytest.mark.parametrize(("options", "message"), [
    (["--method", "adan"], "'adan'"), (["--model", "mlpp"], "'mlpp'"),
    (["--data", "no_such:load"], "no_such"), (["--loss", "hinge"], "'hinge'"),
    (["--options.dampin", "1"], "dampin"), (["--seeds", "0"], "--seeds"),
    (["--loss", "squared-error"], "squared-error"), (["--batch-size", "5000"], "--batch-size"),
    (["--epoch", "3"], "--epoch"), (["--target-accuracy", "98"], "--target-accuracy")])
def test_a_wrong_request_is_refused_in_one_line(options, message, capsys):
    assert run("train", *SHORT, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not Path("runs").exists()


def test_a_run_is_not_overwritten_or_resumed_as_another(capsys):
    assert run("train", *SHORT) == 0
    before = Path("runs/train/metrics.csv").read_bytes()
    for wrong, message in (
            ([*SHORT, "--out", "runs/train"], "--overwrite"),
            (["--resume", "--epochs", "3"], "epochs: 10 there, 3 asked for"),
            (["--resume", "--method", "adam"], "methods"),
            (["--resume", "--model-args.width", "9"], "model_args")):
        assert run("train", *wrong) == 2
        assert message in capsys.readouterr().err
    assert Path("runs/train/metrics.csv").read_bytes() == before
    assert run("train", *SHORT, "--resume") == 0
    assert "nothing is left" in capsys.readouterr().out
    assert run("train", *SHORT, "--overwrite", "--method", "adam") == 0
    assert [path.name for path in Path("runs/train/models").iterdir()] == ["adam-seed0.pt"]


def test_a_damaged_or_foreign_file_is_not_a_model(tmp_path, capsys):
    torch.save({"model": {}}, tmp_path / "foreign.pt")
    (tmp_path / "empty").mkdir()
    for path in ("foreign.pt", "empty", "nowhere.pt"):
        assert run("predict", path) == 2
        assert path in capsys.readouterr().err


def test_tensorboard_reads_the_same_numbers():
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert run("train", *SHORT, "--tensorboard") == 0
    events = accumulator.EventAccumulator("runs/train/tensorboard/emsa-seed0")
    events.Reload()
    found = [event.value for event in events.Scalars("test_accuracy")]
    expected = [float(row["test_accuracy"]) for row in rows("runs/train/metrics.csv") if row["test_accuracy"]]
    assert found == pytest.approx(expected)


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_ctrl_c_leaves_a_report_and_a_checkpoint(tmp_path):
    command = [sys.executable, "-m", "pontryagin", "train", "--epochs", "100000", "--model", "mlp", "--out",
               "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
                          preexec_fn=lambda: signal.signal(signal.SIGINT,
                                                           signal.default_int_handler)) as process:
        for _ in range(3000):
            if (tmp_path / "run" / "metrics.csv").exists() and (tmp_path / "run"
                                                                / "metrics.csv").stat().st_size > 300:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        printed, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "--resume" in printed
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["state"] == "interrupted"
    assert checkpoint.read(tmp_path / "run" / "checkpoint.pt")["runs"][0]["iteration"] > 0
