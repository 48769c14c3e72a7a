"""`pontryagin bench scaling`: whole iterations of extended MSA by one and by several processes."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan, log
from pathlib import Path
from statistics import median
from typing import Any

from pontryagin.bench.scaling_worker import MAXIMIZERS, NUMBERS, SHARES, TEXT, cases
from pontryagin.run.errors import ExperimentError, unknown
from pontryagin.run.files import opened, write_json
from pontryagin.run.option import check_numbers, option
from pontryagin.run.study import described
from pontryagin.run.tables import Table, read_table

NOTHING: dict[str, Any] = {"cases": [], "exponents": {}}
"""The results before any case has been measured."""
OPTIMIZER_ROUNDS = 3
"""Of EMSA under DistributedDataParallel, which is started anew for every number of processes."""


@dataclass(frozen=True)
class ScalingSettings:
    """Whole iterations of extended MSA by one and by several processes of this machine, one thread each, in
    turn: strong and weak scaling, cost by depth and by samples, and the shares of propagation, moments,
    maximization and communication.
    """

    processes: tuple[int, ...] = option("numbers of processes beside one, with commas", (2,), least=1,
                                        most=256)
    maximizers: tuple[str, ...] | None = option(f"all, or names with commas: {', '.join(MAXIMIZERS)}",
                                                MAXIMIZERS)
    rounds: int = option("iterations measured of every case", 7, least=1)
    quick: bool = option("fewer and smaller cases", False)
    out: Path = option("folder for the results, new or empty", Path("runs/scaling"))
    overwrite: bool = option("replace the run that is in the folder", False)

    def __post_init__(self) -> None:
        check_numbers(self)
        if wrong := [name for name in self.maximizers or () if name not in MAXIMIZERS]:
            raise unknown("maximizer", wrong, MAXIMIZERS)


def run_scaling(settings: ScalingSettings, command: str) -> tuple[Path, bool]:
    """Write metrics.csv and summary.json into settings.out, by processes that torchrun starts. Returns the
    folder, and whether the measurement was interrupted; then what has been measured is there. Raises
    ExperimentError."""
    with opened(settings.out, settings.overwrite) as folder:
        write_json(folder / "summary.json", {**described("scaling", settings, command), "interrupted": True,
                                             "results": NOTHING})
        try:
            _measure(settings, folder.resolve())
        except KeyboardInterrupt:
            settle(folder)
            return folder, True
        settle(folder, interrupted=False)
    return folder, False


def _measure(settings: ScalingSettings, out: Path) -> None:
    request, table = out / "request.json", out / "metrics.csv"
    wanted = [asdict(case)
              for case in cases(settings.processes, settings.maximizers or MAXIMIZERS, settings.quick)]
    try:
        write_json(request, {"cases": wanted, "rounds": settings.rounds, "table": str(table)})
        _start(max(1, *settings.processes), "stages", str(request))
    finally:
        request.unlink(missing_ok=True)
    for number in range(1, (1 if settings.quick else OPTIMIZER_ROUNDS) + 1):
        for size in sorted({1, *settings.processes}):
            _start(size, "optimizer", str(table), str(number))


def settle(out: Path, interrupted: bool = True) -> None:
    """summary.json with what metrics.csv has, of a run that was stopped too."""
    path, table = out / "summary.json", out / "metrics.csv"
    summary = json.loads(path.read_text(encoding="utf-8"))
    if summary["interrupted"] and table.exists():
        write_json(path, summary | {"interrupted": interrupted,
                                    "results": summarize(read_table(table, TEXT, NUMBERS))})


def _start(processes: int, *arguments: str) -> None:
    """The worker by torchrun, one thread each; none of them outlives this process, or torchrun."""
    done = subprocess.run(
        [sys.executable, "-m", "pontryagin.run.ending", str(os.getpid()), "torch.distributed.run",
         "--standalone", f"--nproc-per-node={processes}", "-m", "pontryagin.bench.scaling_worker",
         *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True, errors="replace",
        check=False)
    if done.returncode:
        raise ExperimentError(f"the processes that measure have failed: {_cause(done.stderr)}")


def _cause(told: str) -> str:
    """What one of them has said at its end; torchrun's own report is none for people."""
    said = [line.removeprefix("pontryagin: ") for line in told.splitlines()
            if line.startswith("pontryagin: ")]
    return said[0] if said else "without a word, as killed processes do"


def summarize(table: Table) -> dict[str, Any]:
    """Rows by case, each a median over rounds, and the exponents of one process by depth and by samples, of
    seconds and of memory, fitted by least squares to the three largest. None where a part is not known."""
    rows, exponents = _rows(table), {}
    for series in ("depth", "samples"):
        for name in table.values("maximizer"):
            points = [row for row in rows if row["series"] == series and row["maximizer"] == name][-3:]
            for value in ("seconds", "memory_mib"):
                # not where the system does not tell
                if len(points) > 1 and all(row[value] for row in points):
                    exponents[f"{name} {value.split('_')[0]} by {series}"] = slope(
                        [(row[series], row[value]) for row in points])
    return {"cases": rows, "exponents": exponents}


def slope(points: Sequence[tuple[float, float]]) -> float:
    """b of y = a x^b, least squares in logarithms."""
    x, y = [log(one) for one, _ in points], [log(two) for _, two in points]
    center, level = sum(x) / len(x), sum(y) / len(y)
    return sum((a - center) * (b - level) for a, b in zip(x, y, strict=True)) / sum((a - center) ** 2
                                                                                    for a in x)


def _rows(table: Table) -> list[dict[str, Any]]:
    keys = [*TEXT, "depth", "width", "samples", "processes"]
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for values in zip(*table.columns.values(), strict=True):
        one = dict(zip(table.columns, values, strict=True))
        found.setdefault(tuple(one[key] for key in keys), []).append(one)
    result = []
    for key, rounds in found.items():
        row: dict[str, Any] = dict(zip(keys, key, strict=True))
        row["seconds"] = median(one["seconds"] for one in rounds)
        row["shares"] = {name: _known(median(one[name] / one["seconds"] for one in rounds))
                         for name in SHARES}
        row["memory_mib"] = _known(max(one["memory"] for one in rounds))
        single, together = found.get((*key[:-1], 1.0)), found.get((*key[:-1], 0.0))
        if key[-1] > 1 and single:  # ratios of the same round, so that a busy machine slows both
            row["speedup"] = _ratio(single, rounds, "seconds")
        if key[-1] > 1 and single and together:
            row["maximization_speedup"] = _ratio(single, rounds, "maximization")
            row["ceiling"] = key[-1] * _ratio(single, together, "maximization")
        if key[-1]:
            result.append(row)
    return result


def _known(value: float) -> float | None:
    return None if isnan(value) else float(value)


def _ratio(single: Sequence[dict[str, Any]], rounds: Sequence[dict[str, Any]], part: str) -> float:
    """The median of one process's seconds of a part divided by these, round by round."""
    by_round = {one["round"]: one[part] for one in single}
    return median(by_round[one["round"]] / max(one[part], 1e-9) for one in rounds)
