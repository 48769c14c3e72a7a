"""A disk without room ends a run in one clear line, and what had been written can be gone on from."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 200_000


def limited() -> None:
    """No file larger than this: a write past it fails as on a full disk (EFBIG in the place of ENOSPC)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))


@pytest.mark.skipif(os.name != "posix", reason="limits on the size of files are POSIX")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pontryagin", "train", "--model", "mlp", "--model-args.width", "300",
               "--iterations", "3",
               "--out", str(tmp_path / "run")]
    failed = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limited,
                            timeout=300)
    assert failed.returncode == 74, failed.stderr
    assert "Traceback" not in failed.stderr
    assert "the disk is full" in failed.stderr
    assert "--resume" in failed.stderr
    whole = subprocess.run([*command, "--overwrite"], capture_output=True, text=True, check=False,
                           timeout=300)
    assert whole.returncode == 0, whole.stderr
