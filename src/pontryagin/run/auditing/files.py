"""The files of an audit: stages.csv, restrictions.csv, summary.json."""

from pathlib import Path
from typing import Any

from pontryagin.audit import Audit
from pontryagin.run.files import Table, write_json

STAGES = ("stage", "name", "kind", "shape", "parameters", "inputs", "gain", "gain_error", "gain_here",
          "costate_norm",
          "condition", "effective_rank", "rows")
RESTRICTIONS = ("set", "rank", "stage", "name", "change", "first_order", "predicted", "predicted_error",
                "true", "true_error")


def write_files(folder: Path, audit: Audit, about: dict[str, Any]) -> None:
    """All three; `about` says what was run."""
    with Table(folder / "stages.csv", STAGES) as table:
        for number, stage in enumerate(audit.stages):
            table.add(number, stage.name, stage.kind, "x".join(map(str, stage.shape)), stage.parameters,
                      stage.inputs, stage.gain, stage.gain_error, stage.gain_here, stage.costate_norm,
                      stage.condition, stage.effective_rank, stage.rows)
    numbers = {stage.name: number for number, stage in enumerate(audit.stages)}
    with Table(folder / "restrictions.csv", RESTRICTIONS) as table:
        for name in audit.sets:
            for stage, each in audit.ranking(name):
                table.add(name, each.rank, numbers[stage.name], stage.name, each.change, each.first_order,
                          each.predicted, each.predicted_error, each.true, each.true_error)
    found = audit.to_dict()
    stages = {stage["name"]: stage for stage in found.pop("stages")}
    for stage in stages.values():
        stage["restrictions"] = {each["set"]: each for each in stage["restrictions"]}
    write_json(folder / "summary.json", {**about, "results": {**found, "stages": stages}})
