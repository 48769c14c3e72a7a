"""Tables of README and docs are those of their csv files, and what pages say of them follows from these."""

import re
import sys
from math import exp, log
from pathlib import Path
from statistics import mean

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

from tables import (
    FOLDER,
    NUMBER,
    PAGES,
    PROSE,
    TABLE,
    named,
    printed,
    read,
    renewed,
    unmarked,
    without_source,
)

NAMES = sorted(path.stem for path in FOLDER.glob("*.csv"))
TEXT = {page.name: page.read_text(encoding="utf-8") for page in PAGES}


@pytest.mark.parametrize("page", TEXT)
def test_a_page_has_the_tables_of_the_csv_files(page: str) -> None:
    assert renewed(TEXT[page]) == TEXT[page], "run python docs/tables.py"


@pytest.mark.parametrize("page", TEXT)
def test_numbers_come_from_csv_files(page: str) -> None:
    assert without_source(TEXT[page]) == []
    tables, prose = unmarked(TEXT[page])
    assert tables == [], "put them into docs/tables/NAME.csv, and above each <!-- table: NAME -->"
    assert prose == [], "say above the paragraph whose numbers these are, as docs/tables.py has it"


def test_numbers_without_a_source_are_found() -> None:
    of_cost, of_loss = read("gpu-cost")[1][1][1], read("gpu-loss")[1][1][2]
    text = (f"<!-- numbers: gpu-cost, gpu-loss -->\nIt takes {of_cost} ms, {of_loss} and 98.765 of them, "
            "7 %.\n\nOf 12 %.\n")
    assert without_source(text) == ["98.765 (gpu-cost, gpu-loss)", "7 (gpu-cost, gpu-loss)"]
    assert unmarked(text) == ([], ["Of 12 %."])
    for kind in ("apart: settings", "derived: gpu-cost"):
        assert without_source(f"<!-- {kind} -->\nOf 12.5 %.\n") == []
        assert unmarked(f"<!-- {kind} -->\nOf 12.5 %.\n") == ([], [])
    rows = "| a | b |\n|---|---|\n" + "| x | 1.5 |\n" * 4
    assert unmarked(rows) == (["| a | b |"], [])
    assert unmarked(f"<!-- table: t -->\n\n{rows}") == ([], [])


def test_every_csv_is_used_and_says_where_it_comes_from() -> None:
    used = [found["name"] for text in TEXT.values() for found in TABLE.finditer(text)]
    assert len(used) == len({*used}), "a table is printed once"
    told = {name for text in TEXT.values() for found in PROSE.finditer(text) for name in named(found)}
    assert sorted({*used} | told) == NAMES
    for name in NAMES:
        source, rows = read(name)
        assert {"date", "machine", "command", "commit", "duration"} <= source.keys(), name
        assert len(rows) > 1, name
        assert {len(row) for row in rows} == {len(rows[0])}, name


def test_a_changed_number_is_found() -> None:
    page = next(text for text in TEXT.values() if "<!-- table: control -->" in text)
    rows = read("control")[1]
    changed = page.replace(rows[1][1], "9.999", 1)
    assert changed != page
    assert renewed(changed) == page
    assert printed([["", "a"], ["b", "1"]]) == "| | a |\n|---|---|\n| b | 1 |\n"


def in_short(name: str) -> tuple[int, int, dict[str, str]]:
    """Of a table of the panel: on how many EMSA is sooner, how many there are, geometric means."""
    head, *rows = read(name)[1]
    ratios = {share: [min(max(float(row[head.index(column)].removeprefix("< ")), 0.1), 10) for row in rows]
              for share, column in (("quarter", "to its loss at a quarter"), ("half", "at half"),
                                    ("end", "at the end"))}
    return sum(ratio > 1 for ratio in ratios["end"]), len(rows), {
        share: f"{exp(mean(map(log, each))):.2f}" for share, each in ratios.items()}


@pytest.mark.parametrize("name", ["panel", "panel-20"])
def test_what_is_said_of_the_panel_follows_from_its_tables(name: str) -> None:
    sooner, of, means = in_short(name)
    assert (f"sooner on {sooner} of {of}, geometric mean of the ratios {means['end']} (half "
            f"{means['half']}, a quarter {means['quarter']})") in " ".join(TEXT["panel.md"].split())


def test_what_readme_says_of_the_panel_does_too() -> None:
    sooner, of, means = in_short("panel")
    longer = in_short("panel-20")
    readme = " ".join(TEXT["README.md"].split())
    assert f"later on {of - sooner}; the geometric mean of the ratios is {means['end']}" in readme
    assert f"sooner on {longer[0]}, in the mean {longer[2]['end']}" in readme


@pytest.mark.parametrize(("row", "table"), [
    (1, "clock-cnn"), (2, "clock-transformer"), (4, "clock-autoencoder")])
def test_what_readme_has_in_short_is_in_the_long_tables(row: int, table: str) -> None:
    long = {number for cells in read(table)[1] for cell in cells for number in re.findall(r"[\d.]+", cell)}
    for cell in read("measured")[1][row][1:]:
        for number in re.findall(r"[\d.]+", cell):
            assert number in long, f"{number} of {table}"


@pytest.mark.parametrize(("row", "table"), [
    (1, "sine-a"), (2, "images"), (3, "images"), (4, "wall-clock"), (6, "discrete-mnist"),
    (7, "discrete-mnist")])
def test_what_readme_reproduces_is_in_the_tables(row: int, table: str) -> None:
    known = {number for cells in read(table)[1] for cell in cells for number in NUMBER.findall(cell)}
    found = NUMBER.findall(read("reproducing")[1][row][2])
    assert found != []
    assert {*found} <= known, f"{found} of {table}"


def test_what_readme_says_of_control_is_the_range_of_its_table() -> None:
    head, *rows = read("control")[1]
    ratios = [float(row[head.index("seconds / L-BFGS-B's")]) for row in rows if re.match(r"[\d.]+$", row[6])]
    assert read("reproducing")[1][5][2] == f"{min(ratios):.2f} to {max(ratios):.2f} of its time"
