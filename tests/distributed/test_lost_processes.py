"""What the processes of a run say when one of them ends, and what they share after a pass."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks and kills")
GONE = "lost False: rank 1 ended without a word, as a killed process does"
LOST = {
    "killed": [GONE, "", GONE],
    "raised": ["lost False: rank 1 ended: the data of rank 1 are wrong",
               "ProblemError: the data of rank 1 are wrong"],
    "interrupted": ["lost True: rank 1 ended: interrupted", "KeyboardInterrupt: ",
                    "lost True: rank 1 ended: interrupted"],
    "late": ["well", "well", "well"], "wrapped": [GONE, ""],
    "alone": ["lost False: not all 2 processes have met within 1 seconds (rank 1 has not come): one was not "
              "started, cannot be reached, or has died; look at its message"],
}


@pytest.fixture(scope="module")
def said() -> dict[str, list[str]]:
    done = subprocess.run([sys.executable, "-W", "ignore", str(Path(__file__).with_name("lost_program.py"))],
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
                          check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "a word of torch's own"
    return json.loads(done.stdout)


@pytest.mark.parametrize("run", LOST)
def test_every_rank_names_the_first_cause(run: str, said: dict[str, list[str]]) -> None:
    assert said[run] == LOST[run]


def test_means_of_gradients_and_the_buffers_of_rank_0(said: dict[str, list[str]]) -> None:
    first, second = map(json.loads, said["shared"])
    assert first == second == {
        "all": [1.5, 1.5], "one": [3.0, 3.0, 3.0], "none": None, "complex": [1.5, 1.5],
        "table.weight": [0.5] * 4 + [0.0] * 4, "count": [0.0, 0.0], "mask": [0.0, 0.0], "brief": [0.0, 0.0]}
