"""`pontryagin export`."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pontryagin.cli import main
from pontryagin.problem.admissible import Ternary
from pontryagin.run.baselines import draw


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(64, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    made[0].weight.data = draw((32, 64), Ternary())
    return made


@pytest.mark.parametrize("inside", [None, "model", "state_dict"])
def test_there_and_back(inside: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = model().state_dict()
    source, packed, back = (tmp_path / name for name in ("model.pt", "model.packed", "back.pt"))
    torch.save({inside: state, "seed": 0} if inside else state, source)
    for arguments in ([str(source), "--out", str(packed)], [str(packed), "--unpack", "--out", str(back)]):
        with pytest.raises(SystemExit) as stop:
            main(["export", *arguments])
        assert stop.value.code == 0
    found = torch.load(back, weights_only=True)
    assert all(torch.equal(found[name], value) for name, value in state.items())
    told = capsys.readouterr().out
    assert "0.weight" in told
    assert packed.stat().st_size < source.stat().st_size / 2


@pytest.mark.parametrize(("content", "arguments", "message"), [
    (None, ["missing.pt", "--out", "x"], "found nothing"),
    ({"w": torch.randn(4, 4)}, ["model.pt", "--out", "x"], "nothing can be packed"),
    ({"w": 3}, ["model.pt", "--out", "x"], "expected a state dict"),
    ({"w": torch.ones(4, 4)}, ["model.pt"], "name the file to write"),
    ({"w": torch.ones(4, 4)}, ["model.pt", "--out", "model.pt"], "exists already"),
    ({"w": torch.ones(4, 4)}, ["model.pt", "--out", "no/x"], "does not exist"),
    ({"w": torch.ones(4, 4)}, ["model.pt", "--unpack", "--out", "x"], "not a file of packed weights"),
    (b"text", ["model.pt", "--out", "x"], "another kind of file"),
])
def test_wrong_requests(content: object, arguments: list[str], message: str, tmp_path: Path,
                        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    if isinstance(content, bytes):
        Path("model.pt").write_bytes(content)
    elif content is not None:
        torch.save(content, "model.pt")
    with pytest.raises(SystemExit) as stop:
        main(["export", *arguments])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
