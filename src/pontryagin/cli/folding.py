"""Tables of text in terminals that are narrower: columns that have no room follow below."""

from collections.abc import Iterator
from itertools import groupby

_GAP = "  "
"""Between columns, in every line."""


def folded(text: str, width: int) -> str:
    """The text with its tables in parts no wider than `width`, each with the first column; lines that are no
    table stay. A table: two lines or more, one of them too long, with two spaces or more between columns."""
    parts = []
    for is_table, block in groupby(text.splitlines(), key=lambda line: _GAP in line.strip()):
        lines = list(block)
        wide = is_table and len(lines) > 1 and max(map(len, lines)) > width
        parts += _narrow(lines, width) if wide else lines
    return "\n".join(parts)


def _narrow(lines: list[str], width: int) -> list[str]:
    columns = list(_columns(lines))
    parts: list[list[int]] = [[]]
    room = width - _wide(columns[0])
    left = room
    for number, column in enumerate(columns[1:], start=1):
        if parts[-1] and _wide(column) + len(_GAP) > left:
            parts.append([])
            left = room
        parts[-1].append(number)
        left -= _wide(column) + len(_GAP)
    found: list[str] = []
    for part in parts:
        shown = [columns[number] for number in (0, *part)]
        found += [""] if found else []
        widths = [_wide(column) for column in shown]
        found += [_GAP.join(map(str.ljust, row, widths)).rstrip() for row in zip(*shown, strict=True)]
    return found


def _columns(lines: list[str]) -> Iterator[list[str]]:
    """Cells of every column: between places where every line has two spaces or has ended."""
    length = max(map(len, lines))
    padded = [line.ljust(length + len(_GAP)) for line in lines]
    ends = [place for place in range(1, length + 1)
            if all(line[place:place + 2] == _GAP for line in padded)
            and not all(line[place - 1] == " " for line in padded)]
    begin = 0
    for end in ends or [length]:
        yield [line[begin:end].strip() for line in padded]
        begin = end


def _wide(column: list[str]) -> int:
    return max(map(len, column))
