"""Output folders: a start that failed is in nobody's way, nothing that was measured is lost, and a folder
that is moved or removed under a run is no success."""

import gc
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pontryagin.cli import main
from pontryagin.run.callbacks import TerminalDisplay
from pontryagin.run.errors import ExperimentError
from pontryagin.run.files import Table, free_folder, last_folder, opened, prepare
from pontryagin.run.reports.training import write_report

WRITE_REPORT = write_report
SHORT = ["--model", "mlp", "--model-args.depth", "1", "--model-args.width", "8", "--iterations", "6"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pontryagin.run.reports.training.write_report", lambda out, _: out / "report.html")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_the_usual_folder_is_numbered_where_it_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    for expected in ("runs/train", "runs/train-2", "runs/train-3"):
        assert run("train", *SHORT) == 0
        assert f"Report: {expected}/report.html" in capsys.readouterr().out
    assert run("train", "--resume") == 0
    assert "runs/train-3 is complete" in capsys.readouterr().out
    assert run("train", *SHORT, "--overwrite") == 0
    assert "Report: runs/train/report.html" in capsys.readouterr().out
    assert run("train", *SHORT, "--out", "runs/train") == 2
    assert "runs/train already holds a run" in capsys.readouterr().err


def test_a_run_that_has_only_begun_is_in_nobodys_way(tmp_path: Path) -> None:
    for broken in ("metrics.csv", "summary.json", "checkpoint.pt"):
        out = tmp_path / broken[:3]
        out.mkdir()
        (out / broken).write_text("figure,method\n")
        (out / ".lock").touch()
        assert free_folder(out) == out
        assert prepare(out, False) == out
        assert not (out / broken).exists()
    with Table(out / "metrics.csv", ("a",)) as table:
        table.add(1)
    (out / "metrics.csv").write_text("a\n1\n")
    assert free_folder(out) == tmp_path / "che-2"
    with pytest.raises(ExperimentError, match="already holds a run"):
        prepare(out, False)


def test_a_folder_in_use_is_passed_over(tmp_path: Path) -> None:
    with opened(tmp_path / "run", False):
        assert free_folder(tmp_path / "run") == tmp_path / "run-2"
        with pytest.raises(ExperimentError, match="another process is running"), opened(tmp_path / "run",
                                                                                        False):
            pass
    assert free_folder(tmp_path / "run") == last_folder(tmp_path / "run") == tmp_path / "run"


def test_a_mistyped_folder_is_not_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", *SHORT, "--out", "runs/mnist") == 0
    capsys.readouterr()
    for command in (["train"], ["compare"], ["reproduce", "mnist"], ["reproduce", "binary"]):
        assert run(*command, "--resume", "--out", "runs/minst") == 2
        printed = capsys.readouterr()
        assert "--out runs/minst: there is no such folder; did you mean runs/mnist?" in printed.err
        assert not printed.out
    assert not Path("runs/minst").exists()


def test_with_restarts_of_torchrun_the_first_start_has_nothing_to_go_on_from(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    assert run("train", *SHORT, "--resume", "--out", "new") == 0
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    assert run("train", *SHORT, "--resume", "--out", "other") == 2


def test_no_link_is_followed_and_no_folder_taken_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old.pt").touch()
    out = tmp_path / "run"
    out.mkdir()
    for name in (".writable.tmp", ".summary.json.tmp", f".checkpoint.pt.{os.getpid()}.tmp", "metrics.csv"):
        (out / name).symlink_to(tmp_path / "theirs")
    (out / "models").symlink_to(tmp_path / "folder")
    prepare(out, True)
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert (tmp_path / "folder" / "old.pt").exists()
    assert not (out / "models").exists()
    for kind, name in (("folder", "metrics.csv"), ("folder", "report.html"), ("file", "models")):
        (out / name).mkdir() if kind == "folder" else (out / name).touch()
        with pytest.raises(ExperimentError, match=f"{name}: is a {kind} where"):
            prepare(out, True)
        (out / name).rmdir() if kind == "folder" else (out / name).unlink()


@pytest.mark.skipif(os.name != "posix", reason="needs named pipes")
@pytest.mark.parametrize("name", ["metrics.csv", "checkpoint.pt", "report.html", "summary.json"])
def test_a_pipe_or_a_folder_in_the_place_of_a_file_is_named_by_every_command(
        name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Instead of being waited for."""
    assert run("train", *SHORT, "--out", "run") == 0
    for put, kind in ((os.mkfifo, "a device or a pipe"), (os.mkdir, "a folder")):
        Path("run", name).unlink(missing_ok=True)
        put(Path("run", name))
        for words in (["train", *SHORT, "--out", "run"], ["train", "--resume", "--out", "run"],
                      ["report", "run"]):
            capsys.readouterr()
            assert run(*words) == 2
            told = capsys.readouterr().err
            assert told.count("\n") == 1
            assert f"run/{name}: is {kind} where" in told or (name == "summary.json" and "none there" in told)
        Path("run", name).unlink() if kind != "a folder" else Path("run", name).rmdir()


@pytest.mark.parametrize("harm", ["removed", "renamed"])
def test_a_folder_lost_in_mid_run_is_no_success(harm: str, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    def after(self: object, one: object, point: object) -> None:
        if Path("run").exists():
            shutil.rmtree("run") if harm == "removed" else Path("run").rename("moved")

    monkeypatch.setattr(TerminalDisplay, "after", after)
    assert run("train", *SHORT, "--out", "run") == 74
    error = capsys.readouterr().err
    assert "run/" in error
    assert "its folder has been moved or removed" in error
    assert error.count("\n") == 1
    assert not Path("run").exists()


@contextmanager
def nothing_left_open() -> Iterator[None]:
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    assert not [str(one.message) for one in caught if one.category is ResourceWarning]


def test_a_table_that_cannot_be_written_is_closed(tmp_path: Path) -> None:
    with nothing_left_open():
        with pytest.raises(FileNotFoundError), Table(tmp_path / "t.csv", ("a",)) as table:
            (tmp_path / "t.csv").unlink()
        del table


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is full")
def test_a_table_that_cannot_be_begun_is_closed() -> None:
    with nothing_left_open(), pytest.raises(OSError, match="No space left"):
        Table(Path("/dev/full"), ("a",))


def test_runs_that_end_by_an_error_close_their_table(monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", *SHORT, "--out", "run") == 0
    rows = Path("run/metrics.csv").read_text().splitlines()
    Path("run/metrics.csv").write_text("\n".join([rows[0], *("x" * len(row) for row in rows[1:])]) + "\n")
    with nothing_left_open():
        assert run("train", "--resume", "--out", "run") == 2
    assert "a row has not as many cells as there are columns" in capsys.readouterr().err
    monkeypatch.setattr(TerminalDisplay, "after", lambda *_: shutil.rmtree("lost"))
    with nothing_left_open():
        assert run("train", *SHORT, "--out", "lost") == 74


def test_numbers_that_are_not_finite_are_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", *SHORT, "--method", "sgd", "--lr", "1e30") == 1
    assert "sgd: seed 0: not finite" in capsys.readouterr().err
    assert run("train", *SHORT, "--method", "sgd", "--options.weight_decay", "1e300", "--lr", "1e30") == 1
    assert "not finite: the step: value cannot be converted" in capsys.readouterr().err
    assert run("compare", *SHORT, "--methods", "sgd,adam", "--rates.sgd", "1e30") == 0


def test_cells_are_no_formulas(tmp_path: Path) -> None:
    with Table(tmp_path / "t.csv", ("a", "b", "c")) as table:
        table.add("=1+1", -2.5, "@x")
    assert (tmp_path / "t.csv").read_text() == "a,b,c\n'=1+1,-2.5,'@x\n"


def test_the_command_that_a_page_prints_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pontryagin.run.reports.training.write_report", WRITE_REPORT)
    assert run("compare", *SHORT, "--methods", "sgd,adam", "--seeds", "2", "--out", "both") == 0
    page = re.sub("<[^>]*>", "", Path("both/report.html").read_text())
    assert "pontryagin predict both --method sgd --seed 0 --predictions predictions.csv" in page
    assert run("predict", "both", "--method", "sgd", "--seed", "0", "--predictions", "predictions.csv") == 0
