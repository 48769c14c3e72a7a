import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from pontryagin.run import checkpoint
from pontryagin.run.checkpoint import CheckpointError

CONTENT = {"model": {"weight": torch.arange(6.0).view(2, 3)}, "numbers": [1, 2.5, None, True, "x"],
           "dtype": torch.float32}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    checkpoint.write(tmp_path / "a.pt", CONTENT)
    return tmp_path / "a.pt"


def test_what_is_written_is_read_and_torch_reads_it_too(path):
    for found in (checkpoint.read(path), torch.load(path, weights_only=True)):
        assert torch.equal(found["model"]["weight"], CONTENT["model"]["weight"])
        assert found["numbers"] == CONTENT["numbers"]
        assert found["dtype"] == torch.float32
    assert zipfile.ZipFile(path).testzip() is None


def test_every_changed_byte_is_noticed(path):
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x40
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            checkpoint.read(path)


def test_every_cut_or_longer_file_is_noticed(path):
    whole = path.read_bytes()
    for content in (*(whole[:length] for length in range(0, len(whole), 11)), whole + b"\0", b"", b"no zip"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            checkpoint.read(path)


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def sealed(path: Path, content: object) -> Path:
    """A file with a right seal that `write` would not make."""
    path.write_bytes(checkpoint.packed(content))
    return path


def test_nothing_in_a_file_is_executed(tmp_path):
    sign = tmp_path / "executed"
    with pytest.raises(CheckpointError, match="tensors and plain types"):
        checkpoint.read(sealed(tmp_path / "a.pt", {"format": 1, "bomb": Bomb(str(sign))}))
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Bomb(str(sign))))
    with pytest.raises(CheckpointError, match="seal"):
        checkpoint.read(tmp_path / "b.pt")
    assert not sign.exists()


def test_compressed_parts_are_refused(path, tmp_path):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        new.writestr("archive/data/1", bytes(10_000_000))
    import hashlib
    data = bomb.read_bytes()
    seal = b"pontryagin checkpoint %020d " % len(data) + hashlib.sha256(data).hexdigest().encode()
    bomb.write_bytes(data[:-2] + len(seal).to_bytes(2, "little") + seal)
    with pytest.raises(CheckpointError, match="compressed"):
        checkpoint.read(bomb)


def test_another_format_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="found 99"):
        checkpoint.read(sealed(tmp_path / "a.pt", {"format": 99}))
    with pytest.raises(CheckpointError, match="expected a dict"):
        checkpoint.read(sealed(tmp_path / "b.pt", [1]))
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.read(tmp_path / "c.pt")


@pytest.mark.parametrize("wrong", [{"a": {"b": object()}}, {"a": [torch.nn.Linear(1, 1)]}, {("a", 1): 1}])
def test_only_tensors_and_plain_types_are_written(tmp_path, wrong):
    with pytest.raises(CheckpointError):
        checkpoint.write(tmp_path / "a.pt", wrong)
    assert not list(tmp_path.iterdir())


def test_the_one_before_is_kept_and_used(tmp_path):
    path = tmp_path / "checkpoint.pt"
    assert checkpoint.read_last(path) is None
    for number in range(3):
        checkpoint.write_next(path, {"number": number})
    assert checkpoint.read(path)["number"] == 2
    assert checkpoint.read(checkpoint.previous(path))["number"] == 1
    assert checkpoint.read_last(path)[0]["number"] == 2
    path.write_bytes(b"half")
    found, trouble = checkpoint.read_last(path)
    assert found["number"] == 1
    assert "seal" in trouble
    path.unlink()
    assert checkpoint.read_last(path)[0]["number"] == 1
    assert {one.name for one in tmp_path.iterdir()} == {"checkpoint.previous.pt"}
