"""A small part of `make kills`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks and kills")


@pytest.mark.parametrize(("stops", "names"), [
    (4, ["two-methods-two-seeds", "recipe"]), pytest.param(2, ["two-processes"], marks=pytest.mark.slow),
    pytest.param(60, [], marks=pytest.mark.slow)])
def test_stopped_at_any_moment_and_resumed_is_bitwise_the_whole(stops: int, names: list[str],
                                                                tmp_path: Path) -> None:
    script = Path(__file__).with_name("kills.py")
    command = [sys.executable, "-W", "ignore", str(script), str(stops), "7", str(tmp_path), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["stops"] >= stops
    assert found["equal"]
