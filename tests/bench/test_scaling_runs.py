"""`pontryagin bench scaling` around the processes that measure: stopped, failed, and its page."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pontryagin.bench import scaling
from pontryagin.bench.scaling_report import headline
from pontryagin.bench.scaling_worker import NUMBERS, TEXT
from pontryagin.cli import main
from pontryagin.run.files import Table
from redrawn import assert_drawn_again


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


@pytest.mark.drawn
@pytest.mark.parametrize("rows", [0, 4])
def test_a_measurement_that_is_stopped_has_a_page(rows: int, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"

    def stopped(processes: int, *arguments: str) -> None:
        if rows:
            with Table(out / "metrics.csv", (*TEXT, *NUMBERS)) as table:
                for number in range(rows):
                    table.add("strong", "lbfgs", 20, 8, 500, 1 + number % 2, number // 2, 0.1, *[0.02] * 5)
        raise KeyboardInterrupt

    monkeypatch.setattr(scaling, "_start", stopped)
    assert run("bench", "scaling", "--quick", "--out", str(out)) == 130
    assert "Only what had been measured is shown" in (out / "report.html").read_text()
    assert not (out / "request.json").exists()
    assert_drawn_again(out)


@pytest.mark.parametrize(("speedups", "said"), [
    ((0.8, 1.5), "Largest speedup: 1.50 by 2 processes, where the machine's cores allow 1.90."),
    ((0.8, 0.5, None), "No speedup: 2 processes take 1.25 times as long as one, at best, where the machine's "
                       "cores allow 1.90."),
    ((), "")])
def test_the_headline_of_a_slowdown_is_not_a_speedup(speedups: tuple[float | None, ...], said: str) -> None:
    assert headline([{"processes": 1}, *({"processes": 2, "speedup": speedup, "ceiling": 1.9}
                                         for speedup in speedups)]) == said


@pytest.mark.parametrize(("told", "said"), [
    ("pontryagin: rank 1: the disk is full\nTraceback (most recent call last):\nChildFailed", "disk is full"),
    ("Traceback (most recent call last):\n" * 500, "without a word, as killed processes do")])
def test_processes_that_fail_are_one_line(told: str, said: str, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of torchrun's own report."""
    def failed(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(returncode=1, stderr=told)

    monkeypatch.setattr(subprocess, "run", failed)
    assert run("bench", "scaling", "--quick", "--out", str(tmp_path / "run")) == 2
    line = capsys.readouterr().err
    assert line.startswith("pontryagin: the processes that measure have failed: ")
    assert said in line
    assert "Traceback" not in line
    assert line.count("\n") == 1
