"""The Python blocks of README and docs run as printed, those of a page one after the other."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
               if "```python" in page.read_text(encoding="utf-8"))

QUICK = ("README.md", "optimizer.md")


def blocks(page: Path) -> str:
    """All of them, at the lines where they stand."""
    text, found = page.read_text(encoding="utf-8"), ""
    for block in re.finditer(r"^```python\n(.*?)^```", text, re.S | re.M):
        found += "\n" * (text[:block.start()].count("\n") + 1 - found.count("\n")) + block[1]
    return found


@pytest.mark.parametrize("page", [
    pytest.param(page, id=page.name, marks=() if page.name in QUICK else pytest.mark.slow) for page in PAGES])
def test_a_page_runs(page: Path, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text(blocks(page), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True,
                          timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0, f"{page.name}: {done.stderr[-2000:]}"


def test_pages_with_blocks_are_found() -> None:
    assert {"README.md", "optimizer.md", "affine-stages.md"} <= {page.name for page in PAGES}
