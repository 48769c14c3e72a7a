"""A rank that never comes, or dies before there is a process group, does not leave the others waiting."""

import os
import socket
import subprocess
import sys

import meeting_program
import pytest

LIMIT = 60.0
"""Seconds for a meeting of two, beside torch's own default of half an hour."""


def started(rank: int, port: int, what: str) -> subprocess.Popen[str]:
    """As torchrun would, of two."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1",
                   "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                   "TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    return subprocess.Popen([sys.executable, meeting_program.__file__, what], env=environment, text=True,
                            stderr=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize("others", [
    pytest.param({}, id="never comes"), pytest.param({"1": "leaves"}, id="leaves"),
    pytest.param({"0": "leaves"}, id="the first leaves", marks=pytest.mark.slow),
    pytest.param({"0": "never comes"}, id="the first never comes", marks=pytest.mark.slow)])
def test_nobody_waits_for_one_that_is_not_there(others: dict[str, str]) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    rank = 1 if "0" in others else 0
    leaving = [started(int(number), port, what) for number, what in others.items() if what == "leaves"]
    waiting = started(rank, port, "stays")
    try:
        told = waiting.communicate(timeout=LIMIT)[1].strip().splitlines()
    finally:
        for process in (waiting, *leaving):
            process.kill()
            process.communicate()
    assert waiting.returncode == 1
    assert told[-1].startswith("not all 2 processes have met within 2 seconds (")
    assert told[-1].endswith("look at its message")


@pytest.mark.slow
def test_the_program_joins_where_both_come() -> None:
    """So that the tests above can fail."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    both = [started(rank, port, "stays") for rank in range(2)]
    found = [process.communicate(timeout=LIMIT) for process in both]
    assert [out.strip() for out, _ in found] == ["joined", "joined"], found
