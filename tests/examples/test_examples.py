"""Every example runs as its first lines say, and ends with a sentence of what was seen; one whose package is
missing says which."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {"hugging_face_trainer": ("accelerate", "transformers"), "lightning_module": ("lightning",),
         "accelerate_loop": ("accelerate",), "skorch_classifier": ("skorch",)}
"""Packages beyond the extra dev."""
SILENT = ("hugging_face_trainer",)
"""Those whose output the page does not show."""
QUICK = ("own_loop",)
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def ran(name: str, folder: Path, *before: str) -> subprocess.CompletedProcess[str]:
    """The example by itself, in a folder of its own."""
    return subprocess.run([sys.executable, *before, str(EXAMPLES / f"{name}.py")], cwd=folder, check=False,
                          capture_output=True, text=True, timeout=600,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})


def check(name: str, done: subprocess.CompletedProcess[str]) -> None:
    """It ends well, and prints what the page shows, up to numbers and to what the last line concludes."""
    assert done.returncode == 0, done.stderr[-2000:]
    if name not in SILENT:
        shown = (EXAMPLES / "output" / f"{name}.txt").read_text(encoding="utf-8")
        assert without_numbers(done.stdout) == without_numbers(shown)
    lines = done.stdout.splitlines()
    assert len(lines) > 1
    assert lines[-1].endswith((".", "(one seed).")), "the last line is a sentence"
    assert " " in lines[-1]
    assert "NOT EQUAL" not in lines[-1]


def without_numbers(text: str) -> list[list[str]]:
    """The words of all lines but the last."""
    return [re.sub(r"-?\d[\d.,]*(e-?\d+)?", "N", line).split() for line in text.splitlines()[:-1]]


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in NAMES if name not in NEEDS and name != "two_processes"])
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    check(name, ran(name, tmp_path))


@pytest.mark.slow
def test_two_processes_run(tmp_path: Path) -> None:
    check("two_processes", ran("two_processes", tmp_path, "-m", "torch.distributed.run", "--standalone",
                               "--nproc-per-node", "2"))


@pytest.mark.slow
@pytest.mark.extra
@pytest.mark.parametrize("name", NEEDS)
def test_an_example_with_another_library_runs(name: str, tmp_path: Path) -> None:
    for package in NEEDS[name]:
        pytest.importorskip(package)
    check(name, ran(name, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_package_is_named_in_one_line(name: str, tmp_path: Path) -> None:
    package = NEEDS[name][0]
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n",
                                               encoding="utf-8")
    where = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run([sys.executable, str(EXAMPLES / f"{name}.py")], capture_output=True, text=True,
                          timeout=300, check=False, env={**os.environ, "PYTHONPATH": where})
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"this example needs {package}: pip install '.[integration]'"]


def test_every_example_is_on_the_page() -> None:
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"../examples/{name}.py" not in page] == []
    printed = sorted(path.stem for path in (EXAMPLES / "output").iterdir())
    assert printed == [name for name in NAMES if name not in SILENT]
    assert [name for name in printed if f"../examples/output/{name}.txt" not in page] == []
    assert NEEDS.keys() <= set(NAMES)
    assert importlib.util.find_spec("sklearn"), "the examples' digits"
