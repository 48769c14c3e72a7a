"""Every Python block of README and docs runs as printed, by itself."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOUND = {f"{page.name}-{number}": found for page in PAGES for number, found in enumerate(
    re.findall(r"^```python\n(.*?)^```\n(?:\n```\n(.*?)^```)?", page.read_text(encoding="utf-8"),
               re.S | re.M))}
BLOCKS, PRINTED = ({name: found[part] for name, found in FOUND.items()} for part in (0, 1))
"""The blocks, and what stands below them as their output."""
NUMBER = r"\d+(?:\.\d+)?(?:e-?\d+)?"
QUICK = ("README.md-0", "optimizer.md-0", "optimizer.md-1")


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in BLOCKS])
def test_a_block_runs(name: str, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(BLOCKS[name], encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True,
                          timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0, f"{name}: {done.stderr[-2000:]}"
    if PRINTED[name]:
        assert re.sub(NUMBER, "N", done.stdout) == re.sub(NUMBER, "N", PRINTED[name])
        assert numbers(done.stdout) == pytest.approx(numbers(PRINTED[name]), rel=0.003, abs=0.003)


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(NUMBER, text)]


def test_blocks_are_found() -> None:
    assert {*QUICK, "affine-stages.md-2"} <= BLOCKS.keys()
    assert PRINTED["README.md-0"]
