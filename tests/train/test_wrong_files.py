"""Files with changed bytes, and files whose seal is right and whose content is not: one line, whoever reads
them."""

import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pontryagin.cli import main
from pontryagin.run import checkpoint
from pontryagin.run.errors import ExperimentError
from pontryagin.run.weights import load_weights, state_dict_of

NET = ["--model", "mlp", "--model-args.depth", "1", "--model-args.width", "4"]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped by a target, with a checkpoint in mid-run."""
    out = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pontryagin.run.reports.training.write_report", lambda *_: None)
        patch.setattr("pontryagin.run.processes.Stop.asked", property(lambda _: True))
        assert run("train", *NET, "--iterations", "3", "--method", "adam", "--out", out) == 130
    return out


def content(trained: Path) -> dict[str, Any]:
    return checkpoint.read(trained / "checkpoint.pt")


def one_line(capsys: pytest.CaptureFixture[str], path: object, *arguments: object) -> str:
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert len(printed.err) < 600
    assert str(path) in printed.err or "seed0" in printed.err or "checkpoint" in printed.err
    return printed.err


@pytest.mark.parametrize("sealed", [True, False])
def test_a_changed_bit_or_a_cut_is_refused_by_every_command(sealed: bool, tmp_path: Path,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    state = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).state_dict()
    whole = tmp_path / "whole.pt"
    torch.save({"model": state}, whole)
    if sealed:
        checkpoint.write(whole, {"model": state})
    before, generator, path = whole.read_bytes(), random.Random(0), tmp_path / "changed.pt"
    for trial in range(60):
        changed = bytearray(before)
        if trial % 3:
            changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
        else:
            del changed[generator.randrange(len(changed)):]
        path.write_bytes(changed)
        if sealed:
            with pytest.raises(ExperimentError, match=str(path)):
                state_dict_of(path)
            continue
        with suppress(ExperimentError):  # or a bit that no content depends on, such as a date in the archive
            assert all(torch.equal(value, state[name]) for name, value in state_dict_of(path).items())
    middle = bytearray(before)
    middle[before.index(state["1.weight"].numpy().tobytes()) + 9] ^= 1
    path.write_bytes(middle)
    for command in (["audit", "mlp", "digits", "--weights", path], ["export", path, "--out", tmp_path / "x"],
                    ["predict", path]):
        assert "damaged" in one_line(capsys, path, *command) or not sealed
    assert sorted(os.listdir(tmp_path)) == ["changed.pt", "whole.pt"]


@pytest.mark.parametrize("text", [b"", b"101", b"PK", b"hello\n", bytes(100), b"\x80\x02K\x05."])
def test_what_is_no_model_is_said_to_be_none(text: bytes, tmp_path: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.pt").write_bytes(text)
    for command in (["export", tmp_path / "a.pt", "--out", tmp_path / "x"], ["predict", tmp_path / "a.pt"],
                    ["audit", "mlp", "digits", "--weights", tmp_path / "a.pt"],
                    ["export", tmp_path / "a.pt", "--unpack", "--out", tmp_path / "x"]):
        one_line(capsys, tmp_path / "a.pt", *command)


def test_code_in_a_file_is_named_and_not_run(tmp_path: Path) -> None:
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "module.pt")
    with pytest.raises(ExperimentError, match=r"it holds torch\.nn\.modules\.linear\.Linear, which is code"):
        state_dict_of(tmp_path / "module.pt")


def meta() -> dict[Any, torch.Tensor]:
    return {"a": torch.empty(2, 2, device="meta")}


@pytest.mark.parametrize(("state", "told"), [
    (lambda: {3: torch.ones(2, 2)}, "expected names of tensors, found 3"), (meta, "a is a meta tensor"),
    (lambda: {"a": torch.eye(3).to_sparse()}, "a is a torch.sparse_coo tensor"),
    (lambda: {"a": torch.ones(1).expand(4, 4)}, "a is an expanded view"),
    (lambda: {"a": torch.ones(4, 4).to(torch.float8_e4m3fn)}, "cannot export|no matrix lies in a set"),
    (dict, "an empty one"), (lambda: {"a": 3}, "expected a state dict"), (lambda: [1], "list")])
def test_what_export_cannot_take_is_one_line(state: Callable[[], Any], told: str, tmp_path: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(state(), tmp_path / "a.pt")
    line = one_line(capsys, tmp_path / "a.pt", "export", tmp_path / "a.pt", "--out", tmp_path / "x")
    assert any(part in line for part in told.split("|"))
    assert not (tmp_path / "x").exists()


def test_weights_that_do_not_fit_are_named_in_short(tmp_path: Path) -> None:
    torch.save(nn.Sequential(*(nn.Linear(3, 3) for _ in range(40))).state_dict(), tmp_path / "a.pt")
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 3))
    with pytest.raises(ExperimentError) as refused:
        load_weights(model, tmp_path / "a.pt")
    assert "the model has no 2.weight, 2.bias, 3.weight and 73 more" in str(refused.value)
    assert "0.weight of (4, 3), not (3, 3)" in str(refused.value)
    assert len(str(refused.value)) < 400 + len(str(tmp_path))


def test_a_name_in_a_file_does_not_speak_to_the_terminal(tmp_path: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a\x1b[31m\nb\u202e": torch.ones(2, 2)}, tmp_path / "a.pt")
    line = one_line(capsys, tmp_path / "a.pt", "train", *NET, "--weights", tmp_path / "a.pt", "--out",
                    tmp_path / "run")
    assert "a\\x1b[31m b\\u202e" in line
    assert line.strip().isprintable()


WRONG = (None, -1, 10**9, 2.5, "x", [], {}, {"a": torch.ones(2)}, float("nan"), True, [{"a": 1}], "\0")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places of a nested content, tensors of generators and of models as one."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, part in inner for place in places(part, (*path, key))]


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    head, *rest = place
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[head] = changed(copy[head], tuple(rest), new)
    return copy


@pytest.mark.parametrize("command", ["predict", "resume"])
def test_a_right_seal_on_a_wrong_content(command: str, trained: Path, tmp_path: Path,
                                         capsys: pytest.CaptureFixture[str],
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pontryagin.run.training.race", lambda *_: pytest.fail("it went on"))
    whole, generator, out = content(trained), random.Random(1), tmp_path / "run"
    every = [place for place in places(whole) if place[0] not in ("format", "torch", "pontryagin", "command")]
    chosen = [(place, new) for place in every for new in generator.sample(WRONG, 2)]
    out.mkdir()
    table = (trained / "metrics.csv").read_bytes()
    for place, new in generator.sample(chosen, 60):
        checkpoint.write(out / "checkpoint.pt", changed(whole, place, new))
        (out / "metrics.csv").write_bytes(table)
        words = ["predict", out] if command == "predict" else ["train", "--resume", "--out", out]
        try:
            status = run(*words)
        except pytest.fail.Exception:  # a change that a run can go on from, as in its numbers of seconds
            status = 0
        printed = capsys.readouterr()
        assert status in (0, 2), (place, new)
        assert printed.err.count("\n") == (1 if status else 0), (place, new, printed.err)
        assert len(printed.err) < 700, (place, new, printed.err)


def test_an_iteration_past_the_end_is_refused(trained: Path, tmp_path: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "metrics.csv").write_bytes((trained / "metrics.csv").read_bytes())
    checkpoint.write(out / "checkpoint.pt", changed(content(trained), ("runs", 0, "iteration"), 10**9))
    assert run("train", "--resume", "--out", out) == 2
    assert "is at iteration 1000000000, the run has 3" in capsys.readouterr().err


def test_predict_takes_the_checkpoint_before_a_damaged_one(trained: Path, tmp_path: Path,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "checkpoint.previous.pt").write_bytes((trained / "checkpoint.pt").read_bytes())
    (out / "checkpoint.pt").write_bytes((trained / "checkpoint.pt").read_bytes()[:-100])
    for path in (out, out / "checkpoint.pt"):
        assert run("predict", path) == 0
        assert "1 iterations" in capsys.readouterr().out


def test_where_predictions_cannot_be_written_is_said_first(trained: Path, tmp_path: Path,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    for target, told in ((tmp_path / "no" / "p.csv", "its folder does not exist"),
                         (tmp_path, "exists already")):
        assert run("predict", trained, "--predictions", target) == 2
        assert told in capsys.readouterr().err
    for device in ("cuda:77", "abacus", "meta"):
        assert run("predict", trained, "--device", device) == 2
        assert f"--device {device}: cannot be used" in capsys.readouterr().err
