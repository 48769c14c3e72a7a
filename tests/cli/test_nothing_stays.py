"""Processes that a command has started end when it is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
PARENT = """
import os, subprocess, sys
inner = subprocess.Popen([sys.executable, "-m", "pontryagin.run.ending", str(os.getpid()), "sleeper"])
inner.wait()
"""
SLEEPER = """
import os, subprocess, sys, time
from pontryagin.run.ending import end_with_parent
if "worker" in sys.argv:
    end_with_parent()
    open(f"{os.getpid()}.pid", "w").close()
    time.sleep(600)
worker = subprocess.Popen([sys.executable, "-m", "sleeper", "worker"])
open(f"{os.getpid()}.pid", "w").close()
worker.wait()
"""


def alive(process: int) -> bool:
    """Not as a zombie either."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(true: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "too long"
        time.sleep(0.02)


def pids(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("*.pid")]


@pytest.mark.parametrize("killed", [0, 1], ids=["the command", "what it has started"])
def test_no_process_outlives_the_one_that_started_it(killed: int, tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)])}
    command = subprocess.Popen([sys.executable, "-c", PARENT], cwd=tmp_path, env=environment)
    try:
        until(lambda: len(pids(tmp_path)) == 2)
        started = pids(tmp_path)
        parent = {int(Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[1]): one
                  for one in started}
        os.kill((command.pid, parent[command.pid])[killed], signal.SIGKILL)
        until(lambda: not any(map(alive, started)))
    finally:
        for one in pids(tmp_path):
            if alive(one):
                os.kill(one, signal.SIGKILL)
        command.kill()
        command.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_benchmark_leaves_no_workers(number: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = subprocess.Popen([sys.executable, "-m", "pontryagin", "bench", "scaling", "--quick", "--out",
                                str(out)], env=environment, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)

    def theirs() -> list[int]:
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline")
                if str(out).encode() in _read(path) and int(path.parent.name) != command.pid]

    try:
        until(lambda: (out / "metrics.csv").exists(), 120)
        assert len(theirs()) >= 3, "torchrun and two workers"
        command.send_signal(number)
        command.wait()
        until(lambda: not theirs())
    finally:
        for one in theirs():
            os.kill(one, signal.SIGKILL)
        command.kill()
        command.wait()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
