import gzip
import multiprocessing
import os

import pytest
import torch
from idx_files import NAMES, contents, serving, small_set, write_set

from pontryagin.cli import main
from pontryagin.run.data import load_images
from pontryagin.run.data.download import Patience
from pontryagin.run.data.fetch import fetch, mirrors
from pontryagin.run.data.places import cached
from pontryagin.run.errors import ExperimentError
from pontryagin.run.progress import Progress

FIRST = f"/{NAMES[0]}.gz"
QUICK = Patience(pause=0.0)
HASTY = Patience(timeout=0.3, pause=0.0, attempts=5)


@pytest.fixture
def mirror(monkeypatch):
    monkeypatch.delenv("PONTRYAGIN_MIRRORS")
    with serving() as mirror:
        yield mirror


def held(wanted) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cached(wanted).iterdir() if path.name != ".lock"}


def is_complete(wanted) -> bool:
    return held(wanted) == {f"{name}.gz": gzip.compress(content, mtime=0)
                            for name, content in contents().items()}


def test_all_files_come_and_are_cached(mirror, use_set):
    wanted = use_set(small_set(mirror.address))
    images = load_images("mnist", progress=Progress())
    assert is_complete(wanted)
    assert len(mirror.requests) == 4
    again = load_images("mnist", progress=Progress())
    assert torch.equal(again.train, images.train)
    assert len(mirror.requests) == 4


def test_a_dropped_connection_is_resumed(mirror):
    mirror.faults = ["drop"]
    wanted = small_set(mirror.address)
    fetch(wanted, Progress(), QUICK)
    assert is_complete(wanted)
    half = len(mirror.files[FIRST]) // 2
    assert mirror.requests[:2] == [(FIRST, None), (FIRST, f"bytes={half}-")]


def test_an_interrupted_download_goes_on_in_the_next_call(mirror):
    wanted = small_set(mirror.address)
    mirror.faults = ["drop", "missing"]
    with pytest.raises(ExperimentError, match="404"):
        fetch(wanted, Progress(), QUICK)
    assert not any(name.endswith("ubyte.gz") for name in held(wanted))
    fetch(wanted, Progress(), QUICK)
    assert is_complete(wanted)
    assert mirror.requests[2] == (FIRST, f"bytes={len(mirror.files[FIRST]) // 2}-")


def test_a_server_without_ranges_starts_over(mirror):
    mirror.ranges, mirror.faults = False, ["drop"]
    wanted = small_set(mirror.address)
    fetch(wanted, Progress(), QUICK)
    assert is_complete(wanted)


@pytest.mark.parametrize("left", [b"rubbish that is no part of the file", b"whole"])
def test_a_partial_file_of_something_else_is_dropped(mirror, left):
    wanted = small_set(mirror.address)
    mirror.faults = ["drop", "missing"]
    with pytest.raises(ExperimentError):
        fetch(wanted, Progress(), QUICK)
    partial = next(path for path in cached(wanted).iterdir() if path.suffix == ".part")
    partial.write_bytes(mirror.files[FIRST] if left == b"whole" else left)
    fetch(wanted, Progress(), QUICK)
    assert is_complete(wanted)


@pytest.mark.parametrize("faults", [["busy", "busy"], ["silent"], ["busy", "drop", "silent"]])
def test_passing_troubles_are_waited_out(mirror, faults):
    mirror.faults = faults
    wanted = small_set(mirror.address)
    fetch(wanted, Progress(), HASTY)
    assert is_complete(wanted)


@pytest.mark.parametrize("fault", ["missing", "wrong", "huge", "promises huge", "bomb"])
def test_the_next_mirror_is_asked_and_nothing_wrong_is_kept(mirror, fault):
    with serving() as other:
        mirror.faults = [fault]
        wanted = small_set(mirror.address, other.address)
        fetch(wanted, Progress(), QUICK)
        assert is_complete(wanted)
        assert [path for path, _ in other.requests] == [FIRST]


@pytest.mark.parametrize(("fault", "reason"),
                         [("missing", "404"), ("busy", "503"), ("silent", "timed out"), ("wrong", "MD5"),
                                               ("huge", "more than"), ("promises huge", "at most"),
                          ("bomb", "holds more")])
def test_without_a_good_mirror_the_reasons_are_told_and_the_cache_stays_empty(mirror, fault, reason):
    mirror.faults = [fault] * 20
    wanted = small_set(mirror.address)
    with pytest.raises(ExperimentError, match=f"(?s){reason}.*PONTRYAGIN_DATA"):
        fetch(wanted, Progress(), HASTY)
    assert not held(wanted)
    assert len(mirror.requests) <= HASTY.attempts


def test_a_wrong_file_in_the_cache_is_fetched_again(mirror):
    wanted = small_set(mirror.address)
    write_set(cached(wanted))
    (cached(wanted) / f"{NAMES[0]}.gz").write_bytes(b"spoilt")
    fetch(wanted, Progress(), QUICK)
    assert is_complete_by_content(wanted)
    assert [path for path, _ in mirror.requests] == [FIRST]


def is_complete_by_content(wanted) -> bool:
    return {name: gzip.decompress(content) for name, content in held(wanted).items()} == {
        f"{name}.gz": content for name, content in contents().items()}


def test_a_mirror_may_serve_plain_files_under_the_same_names(mirror):
    mirror.files = {f"/{name}.gz": content for name, content in contents().items()}
    wanted = small_set(mirror.address)
    fetch(wanted, Progress(), QUICK)
    assert held(wanted) == contents()


def test_other_schemes_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("PONTRYAGIN_MIRRORS")
    write_set(tmp_path)
    with pytest.raises(ExperimentError, match="begins with http"):
        fetch(small_set(f"file://{tmp_path}/"), Progress(), QUICK)


def test_mirrors_of_ones_own(monkeypatch):
    monkeypatch.setenv("PONTRYAGIN_MIRRORS", "https://a.example/data https://b.example/")
    assert mirrors(small_set("https://public.example/")) == ("https://a.example/data/mnist/",
                                                             "https://b.example/mnist/")
    monkeypatch.delenv("PONTRYAGIN_MIRRORS")
    assert mirrors(small_set("https://public.example/")) == ("https://public.example/",)


def _fetch_in_process(address: str) -> None:
    os.environ.pop("PONTRYAGIN_MIRRORS", None)
    fetch(small_set(address), Progress(), Patience(pause=0.0))


def test_two_processes_fetch_once(mirror):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fetch_in_process, args=(mirror.address,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(mirror.requests) == 4
    assert is_complete(small_set(mirror.address))


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_the_command_fetches_and_lists(mirror, use_set, capsys):
    wanted = use_set(small_set())
    mirror.files = {f"/mnist{path}": content for path, content in mirror.files.items()}
    assert run("data") == 0
    assert "pontryagin data fetch mnist" in capsys.readouterr().out
    assert run("data", "fetch", "mnist", "--mirror", mirror.address) == 0
    assert "verified" in capsys.readouterr().out
    assert is_complete(wanted)
    assert run("data") == 0
    assert str(cached(wanted)) in capsys.readouterr().out
    assert run("data", "fetch", "imagenet") == 2
    assert "'imagenet'" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_named(monkeypatch):
    monkeypatch.setenv("PONTRYAGIN_CACHE", "/proc/nowhere")
    with pytest.raises(ExperimentError, match="PONTRYAGIN_CACHE"):
        fetch(small_set(), Progress(), QUICK)
