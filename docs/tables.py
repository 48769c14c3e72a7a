"""Tables of README and docs are printed from csv files: `python docs/tables.py` after a csv has changed.

A table of docs/tables/NAME.csv stands below the line `<!-- table: NAME -->`. Above a paragraph with measured
numbers (with a decimal point, or per cent) a line says where they come from:

    <!-- numbers: NAME, NAME -->           all of them stand in these csv files
    <!-- derived: NAME -->                 a test of its own computes them from this csv
    <!-- apart: WHY -->                    they are in no csv: `settings`, a figure, or how they were measured

Lines of the csv that begin with # say where its numbers come from: date, machine, command, commit, duration.
`tests/docs/test_tables.py` fails where a printed table is not that of its csv, where a number of such a
paragraph is not in it, where a table of measured numbers has no csv, and where a paragraph with numbers does
not say whose they are.
"""

import csv
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "tables"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLE = re.compile(r"^<!-- table: (?P<name>[\w-]+) -->\n\n?(?P<rows>(?:^\|.*\n)*)", re.M)


PROSE = re.compile(r"^<!-- (?P<kind>numbers|derived|apart): (?P<names>[^>]+?) -->\n+"
                   r"(?P<text>(?:(?!<!--).+\n)+)", re.M)
NUMBER = re.compile(r"(?<!Python )\b\d+\.\d+(?:e-?\d+)?|\d+(?= %)")
"""Those that may be measured: with a decimal point, or per cent."""


def named(paragraph: re.Match[str]) -> list[str]:
    """The csv files that a marked paragraph names."""
    return [] if paragraph["kind"] == "apart" else re.split(r", *", paragraph["names"])


def read(name: str) -> tuple[dict[str, str], list[list[str]]]:
    """Where the numbers come from, by word; header and rows."""
    lines = (FOLDER / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    source = dict(line[1:].strip().split(": ", 1) for line in lines if line.startswith("#"))
    return source, list(csv.reader(line for line in lines if not line.startswith("#")))


def without_source(text: str) -> list[str]:
    """The numbers of marked paragraphs that none of their csv files has, with these files' names."""
    found = []
    for paragraph in PROSE.finditer(text):
        if paragraph["kind"] != "numbers":
            continue
        names = named(paragraph)
        known = {number for name in names for row in read(name)[1] for cell in row
                 for number in NUMBER.findall(cell)}
        found += [f"{number} ({', '.join(names)})" for number in NUMBER.findall(paragraph["text"])
                  if number not in known]
    return found


def unmarked(text: str) -> tuple[list[str], list[str]]:
    """Tables whose columns after the first are mostly numbers, and paragraphs with numbers outside of code,
    that do not say where these come from: their first lines."""
    text = PROSE.sub("\n", TABLE.sub("\n", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)))
    tables = [rows for rows in re.findall(r"^\|.*\n\|[-|: ]+\|\n(?:\|.*\n)*", text, re.M)
              if _is_measured(rows)]
    prose = re.sub(r"^(?:\||    ).*$", "", text, flags=re.M)
    return ([rows.splitlines()[0] for rows in tables],
            [part.strip().splitlines()[0] for part in prose.split("\n\n")
             if NUMBER.search(re.sub(r"`[^`]*`", "", part))])


def _is_measured(rows: str) -> bool:
    cells = [cell.strip() for row in rows.splitlines()[2:] for cell in row.split("|")[2:-1] if cell.strip()]
    numbers = [cell for cell in cells if re.match(r"[<*~]*\d+\.\d", cell)]
    return len(numbers) > 3 and 2 * len(numbers) > len(cells)


def printed(rows: list[list[str]]) -> str:
    """As Markdown."""
    head, *body = ["|" + "".join(f" {cell} |" if cell else " |" for cell in row) + "\n" for row in rows]
    return "".join([head, "|---" * len(rows[0]) + "|\n", *body])


def renewed(text: str) -> str:
    """A page with all its tables as their csv files have them."""
    return TABLE.sub(
        lambda found: f"<!-- table: {found['name']} -->\n\n{printed(read(found['name'])[1])}", text)


def main() -> None:
    """Print pages anew, and say what could not be found."""
    tables, kinds = 0, Counter[str]()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        tables += len(TABLE.findall(text))
        kinds.update(paragraph["kind"] for paragraph in PROSE.finditer(text))
        if renewed(text) != text:
            page.write_text(renewed(text), encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: printed anew")
        for number in without_source(text):
            print(f"{page.relative_to(ROOT)}: {number}: not there")
    files = len([*FOLDER.glob("*.csv")])
    print(f"{tables} tables and {kinds['numbers']} paragraphs compared with {files} csv files; tests compute "
          f"{kinds['derived']} paragraphs, {kinds['apart']} say why they are in none")


if __name__ == "__main__":
    main()
