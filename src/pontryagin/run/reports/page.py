"""report.html: a list of blocks as one page that needs no network, no scripts and no other file."""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pontryagin.run.figures import left_out
from pontryagin.run.files import write_text
from pontryagin.run.tables import Drawing, ReportError, Sketch

if TYPE_CHECKING:
    from jinja2 import Template


class Heading(str):
    """Of what follows."""


class Command(str):
    """A line for a terminal."""


@dataclass(frozen=True)
class Banner:
    """What to know before all else."""

    strong: str
    text: str


@dataclass(frozen=True)
class Cells:
    """A table that scrolls sideways by itself; the first `names` columns are words. prose: of sentences,
    which are wrapped."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1
    prose: bool = False


Block: TypeAlias = (str | Sequence[str] | Mapping[str, str] | Heading | Command | Banner | Cells | Drawing)
"""A string is a paragraph, a sequence a list, a mapping a glossary. All words are escaped, but for
Markup's."""


def write_page(folder: Path, title: str, summary: Mapping[str, Any], blocks: Iterable[Block],
               unfinished: Banner | None = None) -> Path:
    """folder/report.html: title, command, blocks; settings, versions, machine and early stops, folded.

    unfinished: shown where the summary says that the run was interrupted. Raises ReportError for a drawing
    whose file is not there.
    """
    opening = [unfinished] if unfinished and summary["interrupted"] else []
    path = folder / "report.html"
    write_text(path, _template().render(
        title=title, blocks=[*opening, Command(str(summary["command"])), *blocks], details=_details(summary)))
    return path


def pictures(folder: Path, sketches: Mapping[str, Callable[[], Sketch | None]],
             titles: bool = False) -> list[Block]:
    """Every sketch that there is, drawn into folder/figures, perhaps under its title; or why none can be."""
    if without := left_out():
        return [Banner("", without)]
    from pontryagin.run.figures.canvas import draw

    return [block for drawing in draw(folder, sketches)
            for block in ((Heading(drawing.title), drawing) if titles else (drawing,))]


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
                        lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)
    found.filters["base64"] = _embedded
    for kind in (Heading, Command, Banner, Cells, Drawing):
        found.tests[kind.__name__.lower()] = _test(kind)
    return found.get_template("page.html.j2")


def _test(kind: type) -> Callable[[object], bool]:
    return lambda block: isinstance(block, kind)


def _embedded(drawing: Drawing) -> str:
    """The PNG file. Raises ReportError."""
    try:
        content = drawing.path.read_bytes()
    except OSError as error:
        raise ReportError(f"{drawing.path}: expected the PNG file of the drawing {drawing.name!r}, found "
                          f"{error}") from error
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ReportError(f"{drawing.path}: expected a PNG file, found one that begins with {content[:8]!r}")
    return base64.b64encode(content).decode()


def _details(summary: Mapping[str, Any]) -> dict[str, Cells]:
    """Tables by their titles; those without rows are left out."""
    found = {name.capitalize(): Cells(("name", "value"), _flat(summary[name]), prose=True)
             for name in ("settings", "versions", "machine")}
    stops = [(f"({figure})", method, str(message)) for figure, methods in summary.get("diverged", {}).items()
             for method, messages in methods.items() for message in messages]
    found["Stopped early"] = Cells(("figure", "method", "why"), stops, prose=True)
    return {title: cells for title, cells in found.items() if cells.rows}


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as lines, inner names after a dot."""
    lines = []
    for key, value in values.items():
        lines += _flat(value, f"{prefix}{key}.") if isinstance(value,
                                                               dict) else [(f"{prefix}{key}", str(value))]
    return lines
