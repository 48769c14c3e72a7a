"""The results of `reproduce plateau`, read again from the files of its folder."""

import json
from math import isnan
from pathlib import Path

from pontryagin.papers.plateau.experiment import TABLES, Left, PlateauResults, PlateauSettings
from pontryagin.run.tables import read_table


def read_results(folder: Path) -> PlateauResults:
    """As far as they had been found. Raises ReportError."""
    table = read_table(folder / "plateau.csv", TABLES["plateau"][:1], TABLES["plateau"][1:])
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    asked = summary["settings"]
    runs = [Left(method, int(layers), noise, int(seed), _known(rate), None if isnan(spent) else int(spent),
                 loss)
            for method, layers, noise, seed, rate, spent, loss in zip(
                *(table[name].tolist() for name in TABLES["plateau"]), strict=True)]
    settings = PlateauSettings(below=asked["below"], iterations=asked["iterations"])
    return PlateauResults(settings, runs, summary["tuning"])


def _known(value: float) -> float | None:
    return None if isnan(value) else value
