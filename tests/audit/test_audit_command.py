"""`pontryagin audit`: from names to files, safely."""

import csv
import json
import random
import textwrap

import pytest
import torch
from torch import nn

from pontryagin.cli import main
from pontryagin.run.auditing import run as audit_run
from pontryagin.run.errors import ExperimentError
from pontryagin.run.models import mlp
from pontryagin.run.weights import state_dict_of
from redrawn import assert_drawn_again

SMALL = ("--model-args.width", "12", "--model-args.depth", "3", "--batches", "4", "--batch-size", "20")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(("audit", *arguments))
    return int(ended.value.code or 0)


def saved(path, **content):
    torch.manual_seed(5)
    model = mlp((1, 8, 8), 10, width=12, depth=3)
    torch.save({name: value(model) for name, value in content.items()} if content else model.state_dict(),
               path)
    return model


def test_files_figures_and_report(tmp_path, capsys):
    weights, out = tmp_path / "net.pt", tmp_path / "run"
    saved(weights)
    before = weights.read_bytes()
    assert run("mlp", "digits", "--weights", str(weights), *SMALL, "--sets", "4-bit,ternary-rows", "--out",
               str(out)) == 0
    assert weights.read_bytes() == before
    assert {path.name for path in out.iterdir()} == {".lock", "stages.csv", "restrictions.csv",
                                                     "summary.json",
                                                     "report.html", "figures"}
    shown = capsys.readouterr().out
    assert "rank correlation" in shown
    assert str(out / "report.html") in shown
    with (out / "stages.csv").open() as file:
        stages = list(csv.DictReader(file))
    assert [stage["name"] for stage in stages] == ["0.1.weight", "1.0.weight", "2.0.weight", "3.weight"]
    with (out / "restrictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows if row["set"] == "int4"] == ["1", "2", "3", "4"]
    assert all(float(row["true"]) == float(row["true"]) for row in rows)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["results"]["samples"] == 80
    restrictions = summary["results"]["stages"][rows[0]["name"]]["restrictions"]
    assert float(rows[0]["predicted"]) == restrictions["int4"]["predicted"]
    assert summary["settings"]["weights"] == str(weights)
    assert_drawn_again(out)
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == 4, "each picture for a phone too"
    assert "3.weight" in page
    for name in ("stages", "costs"):
        assert (out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert run("mlp", "digits", *SMALL, "--out", str(out)) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("mlp", "digits", *SMALL, "--out", str(out), "--overwrite", "--predict-only", "--sets",
               "2:4") == 0
    with (out / "restrictions.csv").open() as file:
        assert [row["true"] for row in csv.DictReader(file)] == [""] * 4


@pytest.mark.parametrize("content", [
    {"model": lambda model: model.state_dict(), "seed": lambda model: 3},
    {"state_dict": lambda model: {f"module.{name}": value for name, value in model.state_dict().items()}},
])
def test_weights_inside_checkpoints(content, tmp_path):
    saved(tmp_path / "plain.pt")
    saved(tmp_path / "inside.pt", **content)
    found = []
    for name in ("plain", "inside"):
        assert run("mlp", "digits", "--weights", str(tmp_path / f"{name}.pt"), *SMALL, "--predict-only",
                   "--sets", "int8",
                   "--out", str(tmp_path / name)) == 0
        found.append((tmp_path / name / "stages.csv").read_text())
    assert found[0] == found[1]


class Evil:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize(("write", "message"), [
    (lambda path: None, "cannot be read"),
    (lambda path: path.write_bytes(b"not a file of torch"), "plain types"),
    (lambda path: torch.save(Evil(), path), "plain types"),
    (lambda path: torch.save({"a": 3}, path), "state dict"),
    (lambda path: torch.save(nn.Linear(2, 3).state_dict(), path), "does not fit"),
    (lambda path: torch.save({name: value / 0 for name,
                              value in mlp((64,), 10, width=12, depth=3).state_dict().items()}, path),
     "NaN"),
])
def test_wrong_weights_are_refused(write, message, tmp_path, capsys):
    write(tmp_path / "net.pt")
    assert run("mlp", "digits", "--weights", str(tmp_path / "net.pt"), *SMALL, "--out",
               str(tmp_path / "run")) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert "executed" not in shown.out
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_with_changed_bytes_are_loaded_or_refused(zipped, tmp_path):
    """Nothing but ExperimentError, whatever the bytes are."""
    path, chance = tmp_path / "net.pt", random.Random(0)
    torch.save({"w": torch.randn(4, 4)}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    refused = 0
    for number in range(300):
        changed = bytearray(content if number % 2 else bytes(chance.randrange(256) for _ in range(number)))
        for _ in range(3 if changed else 0):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        path.write_bytes(changed)
        try:
            state_dict_of(path)
        except ExperimentError:
            refused += 1
    assert refused > 150


@pytest.mark.parametrize(("options", "message"), [
    (["lenet", "digits"], "unknown model 'lenet'"),
    (["mlp", "cifar"], "unknown data 'cifar'"),
    (["mlp", "digits", "--sets", "int5"], "int5"),
    (["mlp", "digits", "--part", "all"], "--part all"),
    (["mlp", "digits", "--batches", "2"], "--batches"),
    (["mlp", "digits", "--part", "test", "--batch-size", "200"], "smaller batches"),
    (["mlp", "digits", "--loss", "hinge"], "hinge"),
])
def test_wrong_requests_are_refused(options, message, tmp_path, capsys):
    assert run(*options, "--out", str(tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_models_data_and_losses_of_ones_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "audited_by_a_test.py").write_text(textwrap.dedent("""
        import torch
        from torch.utils.data import TensorDataset

        class Pairs(torch.utils.data.Dataset):
            def __len__(self):
                return 40

            def __getitem__(self, row):
                return torch.full((4,), row / 40), torch.tensor([float(row)])

        def load():
            return Pairs(), Pairs()

        def net():
            return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))

        def absolute(output, target):
            return (output - target).abs().mean()
    """))
    monkeypatch.chdir(tmp_path)
    own = "audited_by_a_test"
    assert run(f"{own}:net", f"{own}:load", "--loss", f"{own}:absolute", "--batch-size", "8", "--out",
               "run") == 0
    shown = capsys.readouterr().out
    assert "absolute" in shown
    assert run(f"{own}:net", f"{own}:load", "--batch-size", "8", "--out", "run", "--overwrite") == 0


@pytest.mark.parametrize(("steps", "ends"), [
    (0, KeyboardInterrupt), (0, SystemExit), (2, KeyboardInterrupt), (2, SystemExit)])
def test_an_interruption_keeps_what_was_found(steps, ends, tmp_path, monkeypatch, capsys):
    """Ctrl-C and SIGTERM write the page; after a kill, for which SystemExit stands, it can be drawn."""
    real = audit_run.auditing

    def stopped(*arguments, progress, **options):
        progress("gradients", 0, 1)
        found = real(*arguments, progress=progress, **options)
        for _ in range(steps):
            yield next(found)
        raise ends(130)

    monkeypatch.setattr(audit_run, "auditing", stopped)
    out = tmp_path / "run"
    assert run("mlp", "digits", *SMALL, "--sets", "int4", "--out", str(out)) == 130
    assert json.loads((out / "summary.json").read_text())["interrupted"] is True
    if ends is KeyboardInterrupt:
        assert_drawn_again(out)
    else:
        assert not (out / "report.html").exists()
        with pytest.raises(SystemExit, match="0"):
            main(("report", str(out)))
    assert "Interrupted" in (out / "report.html").read_text()
    if steps:
        with (out / "restrictions.csv").open() as file:
            rows = sorted(csv.DictReader(file), key=lambda row: row["stage"])
        assert [row["true"] != "" for row in rows] == [True, False, False, False]
    else:
        assert not (out / "restrictions.csv").exists()
