"""What pages compute on paper, and what they conclude from their tables."""

import re
import sys
from math import ceil, log2
from pathlib import Path
from statistics import median

import pytest

sys.path[:0] = [str(Path(__file__).parents[2] / "docs"), str(Path(__file__).parents[2])]

from benchmarks import owners  # noqa: E402
from tables import read  # noqa: E402

DOCS = Path(__file__).parents[2] / "docs"
N, K, D, FLOPS, LINK, LATENCY, BYTES, INNER = 512, 1000, 256, 1e13, 1e10, 2e-5, 4, 15


def seconds(devices: int, shares: bool, closed: bool) -> tuple[float, float]:
    """Work and communication of an iteration, by the formulas of docs/distributed.md."""
    own, several = ceil(N / devices), devices > 1
    work = 8 * N * K * D**2 / FLOPS / (devices if shares else 1)
    sent = N * (D**2 + D) * BYTES * (devices - 1) / (devices * LINK) + LATENCY * devices if several else 0.0
    sent += (6 if shares else 4) * LATENCY * log2(devices)
    if closed:
        work += (6 * N * K * D**2 / devices if shares else 6 * K * D**2 * own) / FLOPS
        work += 124 * D**3 * own / FLOPS
        if shares and several:
            sent += 3 * N * D**2 * BYTES * (devices - 1) / (devices * LINK) + LATENCY * devices
    else:
        work += 12 * INNER * K * D**2 * own / FLOPS
        if shares and several:
            sent += 2 * N * K * D * BYTES * (devices - 1) / (devices**2 * LINK) + LATENCY * devices
    return work, sent


def test_speedups_on_paper() -> None:
    for devices, *cells in read("scaling-on-paper")[1][1:]:
        for cell, (closed, shares) in zip(cells, ((False, False), (False, True), (True, False), (True, True)),
                                          strict=True):
            work, sent = seconds(int(devices), shares, closed)
            speedup = sum(seconds(1, shares, closed)) / (work + sent)
            assert cell == f"{speedup:.1f} ({100 * sent / (work + sent):.0f}%)"


def test_owners_on_paper() -> None:
    """The table is what the program prints, and its means are those of the formulas above it."""
    found = read("owners-on-paper")[1]
    assert found == [list(owners.HEADER), *map(owners.row, owners.DEVICES)]
    parameters, tokens, flops = 6.74e9, 4e6, 4e14
    for devices, *cells in found[1:]:
        p = int(devices)
        values = {0: 4 * parameters * BYTES / p / 1e9, 2: 6 * parameters * tokens / (p * flops),
                  3: 3 * parameters * BYTES * (p - 1) / p / 1e9,
                  4: 2 * parameters * BYTES * (p - 1) / p**2 / 1e9}
        for column, value in values.items():
            assert float(cells[column]) == pytest.approx(value, rel=0.05), "two digits are printed"


def test_what_is_said_of_rates_that_were_found() -> None:
    rows = [row for name in ("find-lr-emsa", "find-lr-adamw") for row in read(name)[1][1:]]
    found, fixed = (sum(row[column] == "yes" for row in rows) for column in (-2, -1))
    said = " ".join((DOCS / "optimizer.md").read_text(encoding="utf-8").split())
    assert len(rows) == found
    assert f"the rate found is within 1.3 in all {found}; the fixed rates" in said
    assert f"a customary one of AdamW, in {fixed}." in said


def test_what_is_said_of_families() -> None:
    rows = read("families")[1][1:]
    behind = [row[0] for row in rows if not float(row[2]) < min(float(row[3]), float(row[4]))]
    said = " ".join((DOCS / "optimizer.md").read_text(encoding="utf-8").split())
    assert f"EMSA is ahead of both on {len(rows) - len(behind)}, behind on " in said
    told = re.search(r"ahead of both on \d+, behind on (.*?);", said)[1]
    assert re.split(r", | and ", told) == behind


def test_what_is_said_of_depth() -> None:
    rows = read("depth")[1][1:]
    medians = {loss: median(float(cell.split(", ")[1]) for row in rows if row[1] == loss for cell in row[2:])
               for loss in ("1e-3", "1e-4")}
    said = (DOCS / "sine.md").read_text(encoding="utf-8")
    assert f"Medians: {medians['1e-3']:.2f} to a loss of 1e-3, {medians['1e-4']:.2f} to 1e-4" in said


PANEL = {"variational autoencoder": "vae", "sigmoid net": "mlp-3-sigmoid", "ViT": "vit", "LSTM": "lstm",
         "GRU": "gru", "Llama": "llama", "ResNet": "resnet-batch-norm", "ConvNeXt": "convnext"}
"""What README calls networks of the panel."""


def test_what_readme_says_of_networks_of_the_panel() -> None:
    head, *rows = read("panel")[1]
    ratio = {row[0]: row[head.index("at the end")] for row in rows}
    readme = " ".join((DOCS.parent / "README.md").read_text(encoding="utf-8").split())
    said = re.search(r"end loss sooner on \d+ \((.*?)\)", readme)[1]
    found = 0
    for names, number in re.findall(r"([A-Za-z ,-]+?) (\d+\.\d)", said):
        for name, network in PANEL.items():
            if name in names:
                assert float(ratio[network]) == pytest.approx(float(number), abs=0.051), network
                found += 1
    assert found >= len(PANEL) // 2, f"few names of networks are known in: {said}"


def test_what_is_said_of_prices() -> None:
    rows = [[float(cell) for cell in row[1:]] for row in read("panel-prices")[1][1:]]
    said = " ".join((DOCS / "panel.md").read_text(encoding="utf-8").split())
    for least, most, aim in ((0, 5, 1.3), (5, 20, 1.15), (20, 1000, 1.05)):
        own = [row for row in rows if least <= row[0] < most]
        ratio, before = (median(row[column] for row in own) + 1e-9 for column in (2, 3))  # halves go up
        kept = sum(row[2] <= aim for row in own)
        assert re.search(rf"\b{len(own)} (networks on|below|others)", said), len(own)
        told = rf"{ratio:.2f} \((before )?{before:.2f}; (the aim is )?{aim:g}, which {kept} keeps?\)"
        assert re.search(told, said), told


def test_what_is_said_of_seconds_on_the_sine() -> None:
    said = (DOCS / "sine.md").read_text(encoding="utf-8")
    beside_adam, beside_paper = map(int, re.search(
        r"the closed form is (\d+) times sooner at 0.01 than tuned Adam, and (\d+) times sooner than", said
    ).groups())
    for name in ("sine-a", "sine-b"):
        head, *rows = read(name)[1]
        seconds = {row[0].split(" (")[0]: row[head.index("seconds to 0.01")] for row in rows}
        closed = float(seconds["E-MSA, closed form"])
        assert float(seconds["Adam"]) >= beside_adam * closed
        assert float(seconds["E-MSA as in the paper"]) >= beside_paper * closed
