"""The results of `reproduce control`, read again from the files of its folder."""

import json
from pathlib import Path

import torch
from torch import Tensor

from pontryagin.continuous import Residual, Solution
from pontryagin.papers.control.experiment import TABLES, ControlResults, Found
from pontryagin.papers.control.integer import Rounded
from pontryagin.papers.control.problems import CASES
from pontryagin.run.tables import Table, read_table


def read_results(folder: Path) -> ControlResults:
    """As far as they had been found. States and costates of samples that the files leave out are 0, which
    report.html does not draw. Raises ReportError."""
    rows = read_table(folder / "results.csv", TABLES["results"][:2], TABLES["results"][2:])
    drawn = read_table(folder / "trajectories.csv", TABLES["trajectories"][:2], TABLES["trajectories"][2:])
    integer = read_table(folder / "integer.csv", (), TABLES["integer"])
    failed = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["failed"]
    results = ControlResults({}, {}, failed, [
        Rounded(int(intervals), relaxed, rounded, improved, int(flips), torch.zeros(0))
        for intervals, relaxed, rounded, improved, flips in zip(
            *(integer[name].tolist() for name in TABLES["integer"]), strict=True)])
    for name in rows.values("problem"):
        curves = drawn.where(problem=name)
        found = results.found[name] = {}
        for method in rows.values("method"):
            own = rows.where(problem=name, method=method)
            if len(own):
                found[method] = _found(name, own, curves)
        if len(curves) and "newton" in found:
            t, switching = _curve(curves, "switching")
            residual = _curve(curves, "residual")[1].squeeze(1)
            results.residuals[name] = Residual(t, residual, switching, residual, switching)
    return results


def _found(name: str, row: Table, curves: Table) -> Found:
    number = {column: float(row[column][0]) for column in TABLES["results"][2:]}
    on = CASES[name].make()
    (t, states), (_, costates), (_, values) = (_curve(curves, quantity)
                                               for quantity in ("state", "costate", "control"))
    samples, width = on.problem.samples, on.problem.width
    solution = Solution(on, (), values, float(t[-1]) if len(t) else 0.0, t, _shaped(states, samples, width),
                        _shaped(costates, samples, width), number["objective"], number["violation"],
                        int(number["iterations"]), int(number["multiplier_updates"]), torch.zeros(0))
    return Found(solution, number["seconds"], int(number["evaluations"]))


def _curve(curves: Table, quantity: str) -> tuple[Tensor, Tensor]:
    """t, and the components: (t, component)."""
    own = curves.where(quantity=quantity)
    parts = [own.where(component=component) for component in own.values("component")]
    if not parts:
        return torch.zeros(0), torch.zeros(0, 0)
    columns = [torch.tensor(part["value"]) for part in parts]
    return torch.tensor(parts[0]["t"]), torch.stack(columns, 1)


def _shaped(columns: Tensor, samples: int, width: int) -> Tensor:
    """(t, sample, state), of samples after those that were kept 0."""
    whole = columns.new_zeros(len(columns), samples * width)
    whole[:, :columns.shape[1]] = columns
    return whole.unflatten(1, (samples, width))
