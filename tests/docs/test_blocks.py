"""Every Python block of README and docs runs as printed, by itself."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = {f"{page.name}-{number}": block for page in PAGES for number, block in enumerate(
    re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M))}
QUICK = ("README.md-0", "optimizer.md-0", "optimizer.md-1")


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in BLOCKS])
def test_a_block_runs(name: str, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(BLOCKS[name], encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True,
                          timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0, f"{name}: {done.stderr[-2000:]}"


def test_blocks_are_found() -> None:
    assert {*QUICK, "affine-stages.md-2"} <= BLOCKS.keys()
