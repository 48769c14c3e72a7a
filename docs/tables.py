"""Tables of README and docs are printed from csv files: `python docs/tables.py` after a csv has changed.

A table of docs/tables/NAME.csv stands below the line `<!-- table: NAME -->`. Lines of the csv that begin
with # say where its numbers come from: date, machine, command, commit, duration. `tests/docs/test_tables.py`
fails where a printed table is not that of its csv.
"""

import csv
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "tables"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLE = re.compile(r"^<!-- table: (?P<name>[\w-]+) -->\n\n?(?P<rows>(?:^\|.*\n)*)", re.M)


def read(name: str) -> tuple[dict[str, str], list[list[str]]]:
    """Where the numbers come from, by word; header and rows."""
    lines = (FOLDER / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    source = dict(line[1:].strip().split(": ", 1) for line in lines if line.startswith("#"))
    return source, list(csv.reader(line for line in lines if not line.startswith("#")))


def printed(rows: list[list[str]]) -> str:
    """As Markdown."""
    head, *body = ["| " + " | ".join(row).replace("|  |", "| |") + " |\n" for row in rows]
    return "".join([head.replace("|  |", "| |"), "|---" * len(rows[0]) + "|\n", *body])


def renewed(text: str) -> str:
    """A page with all its tables as their csv files have them."""
    return TABLE.sub(
        lambda found: f"<!-- table: {found['name']} -->\n\n{printed(read(found['name'])[1])}", text)


if __name__ == "__main__":
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if renewed(text) != text:
            page.write_text(renewed(text), encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: printed anew")
