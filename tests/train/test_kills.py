import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks and kills")


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_at_any_moment_and_resumed_is_bitwise_the_whole(kills, tmp_path):
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run([sys.executable, "-W", "ignore", str(script), str(kills), "7", str(tmp_path)],
                          capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] >= kills
    assert found["equal"]
