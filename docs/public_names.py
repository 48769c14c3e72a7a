"""Pages of all public names, from the `__all__` of the public packages; a name that got no page is an error.

An extension of Sphinx. A name that several packages have stands on the page of the first of ROOMS.
Docstrings are plain text: indented blocks are shown as they are, formulas among them, and nothing in a line
is markup but `code`.
"""

import re
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from types import FunctionType
from typing import Any

from formulas import FORMULAS
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

import pontryagin

ROOMS = {
    "optim": "The torch optimizer", "problem": "What is solved", "update": "Solvers",
    "maximizer": "The argmax", "hamiltonian": "Hamiltonians", "trajectory": "States and costates",
    "continuous": "Continuous time", "affine": "Affine stages", "audit": "Audit", "export": "Packed weights",
    "distributed": "Many processes", "diagnostics": "Diagnostics", "problem.admissible": "Rows and grids",
    "run.models": "Ready networks", "run.baselines": "Optimizers to compare with",
}
"""The public packages, and what their pages are called."""


def names_of(room: str) -> dict[str, Any]:
    """The public names of a package and what they stand for."""
    package = import_module(f"pontryagin.{room}")
    return {name: getattr(package, name) for name in package.__all__}


def own_names() -> dict[str, list[str]]:
    """By room, the names on its page: those that no room before it has."""
    seen: set[str] = set()
    found: dict[str, list[str]] = {}
    for room in ROOMS:
        found[room] = [name for name in names_of(room) if name not in seen]
        seen |= names_of(room).keys()
    return found


def write_pages(app: Sphinx) -> None:
    """A page a room in `api`, rewritten where it has changed, and their index."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    pages = {room.replace(".", "-"): _page(room, names) for room, names in own_names().items()}
    pages["index"] = "\n".join([
        "API", "===", "", "Every public name. What stands in ``pontryagin`` itself, such as",
        "``pontryagin.ControlProblem``, is on the page of its package.", "", ".. toctree::",
        "   :maxdepth: 1", "", *(f"   {name}" for name in pages)]) + "\n"
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _page(room: str, names: list[str]) -> str:
    title, module = f"{ROOMS[room]}: {room}", f"pontryagin.{room}"
    lines = [title, "=" * len(title), "", *plain((import_module(module).__doc__ or "").splitlines()), "",
             f".. py:module:: {module}", ""]
    found = names_of(room)
    for name in names:
        if isinstance(found[name], type):
            lines += [f".. autoclass:: {module}.{name}", "   :members:", ""]
        else:
            kind = "autofunction" if isinstance(found[name], FunctionType) else "autodata"
            lines += [f".. {kind}:: {module}.{name}", ""]
    return "\n".join(lines)


def plain(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText: indented blocks literally, other lines escaped."""
    first, _, rest = "\n".join(lines).partition("\n")
    found: list[str] = []
    for block in re.split(r"\n\s*\n", f"{first.strip()}\n{dedent(rest)}".strip()):
        title, _, entries = block.partition("\n")
        if title in ("Args:", "Raises:", "Returns:"):
            found += [f"**{title[:-1]}**", "", *_entries(dedent(entries))]
        elif block.startswith("    "):
            found += ["::", "", *(f"   {line}" for line in block.splitlines()), ""]
        else:
            found += [*escaped("\n".join(line.strip() for line in block.splitlines())).splitlines(), ""]
    return found


def _entries(text: str) -> list[str]:
    """`name: meaning` with indented continuations, as a list."""
    return [f"  {line.strip()}" if line.startswith(" ") else f"- {line}"
            for line in escaped(text).splitlines()] + [""]


def escaped(text: str) -> str:
    r"""Text without markup but `code`: a * b_ becomes a \* b\_."""
    parts = re.split(r"`+([^`]+)`+", text)
    return "".join(f"``{' '.join(part.split())}``" if number % 2 else re.sub(r"([\\*|_`])", r"\\\1", part)
                   for number, part in enumerate(parts))


def convert(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Of each docstring that autodoc shows; central objects have their formula below the first paragraph."""
    lines[:] = plain(lines)
    if formula := FORMULAS.get(name.removeprefix("pontryagin.")):
        place = lines.index("") + 1 if "" in lines else len(lines)
        lines[place:place] = [*([] if "" in lines else [""]), ".. math::", "", f"   {formula}", ""]


def check_all_have_a_page(app: Sphinx, env: Any) -> None:
    """Raises ExtensionError, which ends the build."""
    shown = env.get_domain("py").objects
    absent = [room for room in pontryagin._ROOMS if room not in ROOMS]
    absent += [f"{room}.{name}" for room, names in own_names().items() for name in names
               if f"pontryagin.{room}.{name}" not in shown]
    if absent:
        raise ExtensionError(f"public names without a page: {', '.join(absent)}")
    if wrong := [name for name in FORMULAS if f"pontryagin.{name}" not in shown]:
        raise ExtensionError(f"formulas of what has no page: {', '.join(wrong)}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", convert)
    app.connect("env-check-consistency", check_all_have_a_page)
    return {"parallel_read_safe": True}
