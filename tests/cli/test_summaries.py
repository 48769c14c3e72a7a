"""What a run writes down of its options can be written, whatever they are."""

import importlib
import json
import pkgutil
import typing
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

import pontryagin
from pontryagin.run.files import write_json
from pontryagin.run.study import described


def _with_folders() -> Iterator[type]:
    """All settings of commands that have a folder of results."""
    seen = set()
    for module in pkgutil.walk_packages(pontryagin.__path__, "pontryagin."):
        if module.name.split(".")[-1] == "__main__":
            continue
        for found in vars(importlib.import_module(module.name)).values():
            if isinstance(found, type) and is_dataclass(found) and found.__name__.endswith("Settings") \
                    and found not in seen and "out" in {one.name for one in fields(found)}:
                seen.add(found)
                yield found


WITH_FOLDERS = sorted(_with_folders(), key=lambda kind: kind.__name__)


def _filled(kind: type) -> Any:
    """Every path given, the rest as it comes."""
    hints = typing.get_type_hints(kind)
    given = {one.name: Path("/a/b") for one in fields(kind)
             if hints[one.name] in (Path, Path | None, typing.Optional[Path])}  # noqa: UP045
    missing = {one.name: "binary" for one in fields(kind) if one.name not in given
               and one.default is MISSING and one.default_factory is MISSING}
    return kind(**given, **missing)


def test_all_commands_with_results_are_looked_at() -> None:
    names = {kind.__name__ for kind in WITH_FOLDERS}
    assert {"BenchSettings", "PanelSettings", "ScalingSettings", "DiscreteSettings", "SineSettings",
            "ControlSettings"} <= names


@pytest.mark.parametrize("kind", WITH_FOLDERS)
def test_paths_among_the_options_are_written_as_text(kind: type, tmp_path: Path) -> None:
    settings = _filled(kind)
    write_json(tmp_path / "summary.json", described("it", settings, "it --folder /a/b"))
    found = json.loads((tmp_path / "summary.json").read_text())["settings"]
    paths = [name for name, value in vars(settings).items() if isinstance(value, Path)]
    assert "out" in paths
    assert {found[name] for name in paths} == {"/a/b"}
