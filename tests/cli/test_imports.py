"""What an import brings into the process, counted in modules, not in seconds."""

import subprocess
import sys

import pytest

HEAVY = ("torch._dynamo", "torch.distributed.tensor", "sympy", "matplotlib", "scipy", "pandas", "jinja2",
         "sklearn", "rich", "yaml")
ALL_NAMES = "import pontryagin; [getattr(pontryagin, name) for name in pontryagin.__all__]"
ADDED = """
import sys, torch
before = set(sys.modules)
{code}
print(*sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize("code", ["import pontryagin", ALL_NAMES, "from pontryagin import *",
                                  "import pontryagin.optim"])
def test_beside_torch_the_package_brings_nothing_heavy(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", ADDED.format(code=code)], capture_output=True, text=True,
                          check=False)
    assert not done.returncode, done.stderr
    added = done.stdout.split()
    assert "pontryagin" in added
    assert [name for name in added
            if any(name == heavy or name.startswith(f"{heavy}.") for heavy in HEAVY)] == []


def test_the_names_are_those_of_their_rooms() -> None:
    import pontryagin
    from pontryagin import audit, diagnostics, export, problem, update

    assert {"audit", "diagnostics", "export"} <= set(pontryagin.__all__) <= set(dir(pontryagin))
    assert (pontryagin.audit, pontryagin.diagnostics, pontryagin.export) == (audit, diagnostics, export)
    assert pontryagin.ExtendedMSA is update.ExtendedMSA
    assert pontryagin.stage is problem.stage
    with pytest.raises(AttributeError, match="'pontryagin' has no attribute 'ExtendedMSAs'"):
        pontryagin.ExtendedMSAs  # noqa: B018


@pytest.mark.parametrize("arguments",
                         [("--version",), ("--help",), ("reproduce", "--help"), ("bench", "--help")])
def test_the_version_and_the_lists_of_commands_come_without_torch(arguments: tuple[str, ...]) -> None:
    code = f"""
import sys
from pontryagin.cli import main
try:
    main({arguments!r})
except SystemExit as ended:
    assert not ended.code
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert "pontryagin" in done.stdout
