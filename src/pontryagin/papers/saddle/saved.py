"""The results of `reproduce saddle`, read again from the files of its folder."""

from pathlib import Path

import torch
from torch import Tensor

from pontryagin.diagnostics import Density, Extremes
from pontryagin.papers.saddle.experiment import TABLES, Place, SaddleResults
from pontryagin.run.tables import read_table


def read_results(folder: Path) -> SaddleResults:
    """As far as they had been found; of the extreme eigenvalues of a place the first and the last. Raises
    ReportError."""
    tables = {name: read_table(folder / f"{name}.csv", columns[:1], columns[1:])
              for name, columns in TABLES.items()}
    curvature = tables["curvature"]
    places = [Place(method, int(iteration), float(loss), float(norm), Extremes(*map(_one, (least, greatest))))
              for method, iteration, loss, norm, least, greatest in zip(
                  *(curvature[name].tolist() for name in TABLES["curvature"]), strict=True)]
    spectra = {}
    for name in tables["density"].values("at"):
        values, curve = (tables[table].where(at=name) for table in ("eigenvalues", "density"))
        grid, density = (torch.from_numpy(curve[column]) for column in ("eigenvalue", "density"))
        spectra[name] = (torch.from_numpy(values["eigenvalue"]), Density(grid, density, width=0.0))
    return SaddleResults(spectra, places)


def _one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)
