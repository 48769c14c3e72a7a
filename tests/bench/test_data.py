import gzip
import struct

import pytest
import torch

from pontryagin.experiments.data import load_images, load_text, read_idx
from pontryagin.experiments.errors import ExperimentError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(values: torch.Tensor) -> bytes:
    header = struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.to(torch.uint8).numpy().tobytes()


def write_set(folder, samples: int = 7) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    for name in NAMES:
        shape = (samples, 28, 28) if "images" in name else (samples,)
        values = torch.randint(0, 255 if "images" in name else 10, shape, generator=generator)
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(values)))


def test_files_are_found_in_the_folder_or_its_subfolder(tmp_path, monkeypatch):
    write_set(tmp_path / "mnist")
    images = load_images("mnist", str(tmp_path))
    assert images.train.shape == (7, 1, 28, 28)
    assert images.train.max() <= 1
    assert images.test_labels.dtype == torch.int64
    monkeypatch.setenv("PONTRYAGIN_DATA", str(tmp_path / "mnist"))
    assert torch.equal(load_images("mnist").test, images.test)


def test_what_is_missing_is_explained(tmp_path, monkeypatch):
    monkeypatch.delenv("PONTRYAGIN_DATA", raising=False)
    with pytest.raises(ExperimentError, match="PONTRYAGIN_DATA"):
        load_images("mnist")
    with pytest.raises(ExperimentError, match="train-images"):
        load_images("mnist", str(tmp_path))


@pytest.mark.parametrize("content", [
    b"", b"\0\0", b"not an idx file at all", idx(torch.zeros(3, 28, 28))[:-1], idx(torch.zeros(3, 28, 28)) + b"\0",
    struct.pack(">HBBIII", 0, 8, 3, 60000, 28, 29), struct.pack(">HBBIII", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1),
    struct.pack(">HBBI", 0, 13, 1, 3) + b"123"])
def test_a_wrong_file_is_refused(tmp_path, content):
    for path, packed in ((tmp_path / "plain", content), (tmp_path / "packed.gz", gzip.compress(content))):
        path.write_bytes(packed)
        with pytest.raises(ExperimentError, match=path.name):
            read_idx(path)


def test_a_gzip_bomb_and_a_broken_gzip_are_refused(tmp_path):
    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(gzip.compress(idx(torch.zeros(2, 2)) + b"\0" * 50_000_000))
    with pytest.raises(ExperimentError, match="more"):
        read_idx(bomb)
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(idx(torch.arange(5)))[:-9])
    with pytest.raises(ExperimentError, match="get it anew"):
        read_idx(broken)


def test_digits_and_text_need_no_files():
    digits = load_images("digits")
    assert digits.train.shape == (1500, 1, 8, 8)
    assert len(digits.test) == len(digits.test_labels) == 297
    text, characters = load_text()
    assert len(text) > 1_000_000
    assert 0 <= int(text.min()) <= int(text.max()) < characters <= 97
