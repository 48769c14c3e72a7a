"""`pontryagin report`: the page of a run that there is, drawn again."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pontryagin.cli.options import Call, Command
from pontryagin.run.callbacks import ReportContext
from pontryagin.run.content import read_bytes
from pontryagin.run.errors import ExperimentError, need, shown, unknown
from pontryagin.run.figures import left_out
from pontryagin.run.option import option
from pontryagin.run.redrawn import at_rest, settled


@dataclass(frozen=True)
class ReportSettings:
    """Draw the figures and report.html of a run again, from the files in its folder: of train, compare,
    reproduce, audit and bench; also of a run that was stopped half-way, however it was stopped.
    """

    folder: Path = option("the folder of the run")


def _training(folder: Path) -> None:
    settled(folder)
    import_module("pontryagin.run.reports.training").write_report(folder, ReportContext())


def _images(name: str, folder: Path) -> None:
    settled(folder)
    figure = import_module("pontryagin.papers.images.paper").FIGURES[name]
    section = partial(import_module("pontryagin.papers.images.report").section, name)
    import_module("pontryagin.run.reports.training").write_report(folder, ReportContext(
        name, figure.title, section=section, command=f"reproduce {name}"))


def _discrete(folder: Path) -> None:
    settled(folder)
    import_module("pontryagin.papers.discrete.report").write_report(folder)


def _paper(name: str, folder: Path) -> None:
    results = import_module(f"pontryagin.papers.{name}.saved").read_results(folder)
    import_module(f"pontryagin.papers.{name}.report").write_report(folder, results)


def _sine(folder: Path) -> None:
    report = import_module("pontryagin.papers.sine.report")
    report.write_report(folder, report.draw_figures(folder))


def _bench(module: str, folder: Path) -> None:
    import_module(f"pontryagin.bench.{module}").write_report(folder)


def _scaling(folder: Path) -> None:
    import_module("pontryagin.bench.scaling").settle(folder)
    _bench("scaling_report", folder)


def _audit(folder: Path) -> None:
    results = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["results"]
    audit = import_module("pontryagin.run.auditing.saved").read_audit(results) if results else None
    import_module("pontryagin.run.auditing.report").write_report(folder, audit)


DRAWN: Mapping[str, Callable[[Path], None]] = {
    "sine": _sine, "train": _training, "audit": _audit, "bench": partial(_bench, "report"),
    "panel": partial(_bench, "panel.report"), "scaling": _scaling,
    **{name: partial(_paper, name) for name in ("saddle", "plateau", "control", "certificate")},
    **dict.fromkeys(("binary", "ternary"), _discrete),
    **{name: partial(_images, name) for name in ("mnist", "fashion-mnist", "wall-clock")}}
"""By the name of an experiment in summary.json."""
PICTURES = ("sine", "saddle", "plateau", "control", "certificate")
"""Whose pages are nothing without pictures."""


def _report(call: Call) -> bool:
    with at_rest(call.make(ReportSettings).folder) as folder:
        name = _experiment(folder / "summary.json")
        if name in PICTURES:
            need("matplotlib", f"the page of {name}")
        call.say(left_out())
        try:
            DRAWN[name](folder)
        except ExperimentError:
            raise
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ExperimentError(f"{folder}: its files are not those of a run of {name} by this version "
                                  f"({reason[:200]}): they have been changed, or are of another version"
                                  ) from error
    call.say(f"Report: {folder / 'report.html'}")
    return False


def _experiment(path: Path) -> str:
    """Whose folder it is. Raises ExperimentError."""
    try:
        summary: Any = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise ExperimentError(f"{path}: expected JSON, found {' '.join(str(error).split())[:200]}") from error
    name = summary.get("experiment") if isinstance(summary, dict) else summary
    if not isinstance(name, str):
        raise ExperimentError(f"{path}: expected the name of an experiment, found {shown(name)}")
    if name not in DRAWN:
        raise unknown("experiment", [name], DRAWN)
    return name


COMMANDS = {"report": Command(_report, (ReportSettings,))}
