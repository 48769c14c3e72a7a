"""Wide tables in narrow terminals: nothing is lost, nothing is wider, words stay."""

import random

from pontryagin.cli.folding import folded
from pontryagin.run.reports.words import lines


def test_columns_without_room_follow_below_with_the_first_one() -> None:
    text = lines([("stage", "kind", "gain", "int4"), ("0.weight", "Conv2d", "-0.1", "1 / 2"),
                  ("1", "Linear", "0", "-")])
    assert folded(f"Before.\n{text}\nloss 0.1 (cross-entropy), of all stages", 20) == (
        "Before.\n"
        "stage     kind\n0.weight  Conv2d\n1         Linear\n\n"
        "stage     gain\n0.weight  -0.1\n1         0\n\n"
        "stage     int4\n0.weight  1 / 2\n1         -\n"
        "loss 0.1 (cross-entropy), of all stages")


def test_a_table_that_has_room_and_words_stay() -> None:
    text = lines([("a", "b"), ("1", "2")])
    assert folded(text, 80) == text
    words = "one  long line alone, with two spaces in it, is no table " * 3
    assert folded(words, 80) == words
    assert folded("", 80) == ""


def test_every_cell_is_there_and_no_line_is_wider() -> None:
    draw = random.Random(0)
    for _ in range(200):
        rows = [[f"{draw.choice(['a', 'some words', '-', ''])}{row}{column}" for column in range(9)]
                for row in range(3)]
        text = lines(rows)
        told = folded(text, 40)
        if max(map(len, text.splitlines())) <= 40:
            assert told == text
            continue
        assert max(map(len, told.splitlines())) <= 40
        for row in rows:
            assert all(cell in told for cell in row)
        assert told.count(rows[0][0]) > 1
