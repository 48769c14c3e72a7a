"""report.html: a list of blocks as one page that needs no network, no scripts and no other file."""

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from markupsafe import Markup, escape

from pontryagin.run.figures import left_out
from pontryagin.run.files import write_text
from pontryagin.run.tables import Drawing, ReportError, Sketch

if TYPE_CHECKING:
    from jinja2 import Template


class Heading(str):
    """Of what follows."""


class Command(str):
    """A line for a terminal."""


class Headline(str):
    """What came out, in one sentence, at the top."""


@dataclass(frozen=True)
class Next:
    """What to do now: words, and a line for a terminal or nothing."""

    ways: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Banner:
    """What to know before all else."""

    strong: str
    text: str


@dataclass(frozen=True)
class Cells:
    """A table that scrolls sideways by itself, or, on a phone and with more than three columns, is a list;
    the first `names` columns are words. prose: of sentences, which are wrapped. best: the cells to be marked,
    by row and column."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1
    prose: bool = False
    best: Set[tuple[int, int]] = frozenset()


Block: TypeAlias = (str | Sequence[str] | Mapping[str, str] | Heading | Command | Headline | Next | Banner
                    | Cells | Drawing)
"""A string is a paragraph, a sequence a list, a mapping a glossary. All words are escaped, but for
Markup's."""


_QUICK = Banner("A quick look.", Markup(
    'This run was kept short by <span class="nowrap">--quick</span>: fewer iterations, seeds or samples than '
    "the experiment has. Its numbers do not repeat those of the whole one; the same command without "
    '<span class="nowrap">--quick</span> gives these.'))


def write_page(folder: Path, title: str, summary: Mapping[str, Any], blocks: Iterable[Block],
               unfinished: Banner | None = None, headline: str = "",
               ways: Sequence[tuple[str, str]] = ()) -> Path:
    """folder/report.html: title, headline, what to do next, the command, blocks; settings, versions, machine
    and early stops, folded.

    unfinished: shown where the summary says that the run was interrupted; one that --quick kept short says so
    too. ways: words and a command or nothing, what to do next. Raises ReportError for a drawing whose file is
    not there.
    """
    command = str(summary["command"])
    opening: list[Block] = [Headline(headline)] if headline else []
    opening += [unfinished] if unfinished and summary["interrupted"] else []
    opening += [_QUICK] if "--quick" in command.split() else []
    opening += [Next(ways)] if ways else []
    path = folder / "report.html"
    write_text(path, _template().render(
        title=title, blocks=[*opening, Command(command), *blocks], details=_details(summary)))
    return path


def headline_of(page: Path) -> str:
    """What a page says that came out; empty where it says nothing of it."""
    found = re.search(r'<p class="headline"><b>(.*?)</b></p>', page.read_text(encoding="utf-8"))
    return unescape(found[1]) if found else ""


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
    found.filters["unbroken"] = _unbroken
    for kind in (Heading, Command, Headline, Next, Banner, Cells, Drawing):
        found.tests[kind.__name__.lower()] = _test(kind)
    return found.get_template("page.html.j2")


def _test(kind: type) -> Callable[[object], bool]:
    return lambda block: isinstance(block, kind)


def _unbroken(command: str) -> Markup:
    """Lines do not break within an option's name, for instance after its first hyphen."""
    return Markup(" ").join(Markup("<span>{}</span>").format(word) if word.startswith("--") else escape(word)
                            for word in command.split(" "))


def _embedded(path: Path) -> str:
    """The PNG file of a drawing. Raises ReportError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReportError(f"{path}: expected the PNG file of a drawing, found {error}") from error
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ReportError(f"{path}: expected a PNG file, found one that begins with {content[:8]!r}")
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
        lines += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [
            (f"{prefix}{key}", _word(value))]
    return lines


def _word(value: object) -> str:
    """A setting as a reader says it."""
    if value is None or value in ({}, [], ()):
        return "none given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(_word, value)) if isinstance(value, (list, tuple)) else str(value)
