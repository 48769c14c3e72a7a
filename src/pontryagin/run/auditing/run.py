"""An audit from the first check to the last file."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pontryagin.audit import Audit, auditing
from pontryagin.audit.audit import Report
from pontryagin.problem.ignored import counted
from pontryagin.run.auditing.request import AuditRequest, AuditSettings, requested
from pontryagin.run.environment import machine, versions
from pontryagin.run.evaluation import left_words
from pontryagin.run.files import Table, opened, write_json
from pontryagin.run.progress import Advance, Progress

STAGES = ("name", "kind", "shape", "parameters", "inputs", "gain", "gain_error", "gain_here", "costate_norm",
          "condition", "effective_rank", "rows")
"""Of stages.csv, after the stage's number: attributes of a StageAudit."""
RESTRICTIONS = ("change", "first_order", "predicted", "predicted_error", "true", "true_error")
"""Of restrictions.csv, after the set, the rank and the stage: attributes of a Restriction."""


def run_audit(settings: AuditSettings, command: str, progress: Progress) -> tuple[Audit | None, bool]:
    """The audit with its files in the folder, and whether it was interrupted: then true costs are missing, or
    all of it. The files are written as soon as there is something to be told, for a page after a kill too.

    Raises ExperimentError, ProblemError and NonFiniteError.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    request = requested(settings)
    if words := left_words(settings.part, _ignored(request)):
        progress.say(words)
    audit: Audit | None = None
    interrupted = False
    with opened(settings.out, settings.overwrite):
        try:
            with _bars(progress, lambda: _write(settings, command, None, True)) as report:
                for found in auditing(request.model, request.loss, request.batches, sets=settings.sets,
                                      measure=settings.measure, progress=report):
                    audit = found
                    _write(settings, command, audit, True)
        except KeyboardInterrupt:
            interrupted = True
            progress.say("Interrupted: reporting what has been found.")
        _write(settings, command, audit, interrupted)
    return audit, interrupted


def _ignored(request: AuditRequest) -> float:
    """The share of the targets that do not count."""
    targets = torch.cat([target.flatten() for _, target in request.batches])
    return 1 - counted(targets).double().mean().item() if request.loss == "cross-entropy" else 0.0


def _write(settings: AuditSettings, command: str, audit: Audit | None, interrupted: bool) -> None:
    """stages.csv and restrictions.csv, where there is an audit, and summary.json, without results where there
    is none."""
    results = {} if audit is None else _results(audit)
    if audit is not None:
        _write_tables(settings.out, audit)
    write_json(settings.out / "summary.json", {
        "experiment": "audit", "command": command, "interrupted": interrupted, "settings": asdict(settings),
        "versions": versions(), "machine": machine(), "results": results})


def _write_tables(out: Path, audit: Audit) -> None:
    numbers = {stage.name: number for number, stage in enumerate(audit.stages)}
    with Table(out / "stages.csv", ("stage", *STAGES)) as table:
        for number, stage in enumerate(audit.stages):
            values = {name: getattr(stage, name) for name in STAGES}
            table.add(number, *(values | {"shape": "x".join(map(str, stage.shape))}).values())
    with Table(out / "restrictions.csv", ("set", "rank", "stage", "name", *RESTRICTIONS)) as table:
        for name in audit.sets:
            for stage, each in audit.ranking(name):
                table.add(name, each.rank, numbers[stage.name], stage.name,
                          *(getattr(each, column) for column in RESTRICTIONS))


def _results(audit: Audit) -> dict[str, Any]:
    """Stages and restrictions by their names."""
    found = audit.to_dict()
    stages = {stage["name"]: stage | {"restrictions": {each["set"]: each for each in stage["restrictions"]}}
              for stage in found.pop("stages")}
    return found | {"stages": stages}


@contextmanager
def _bars(progress: Progress, begin: Callable[[], None]) -> Iterator[Report]:
    """A bar after the other, from steps as the audit tells them. begin: called before the first, when nothing
    has been refused."""
    shown: tuple[str, Advance] | None = None
    bars = ExitStack()

    def report(title: str, done: int, length: int) -> None:
        nonlocal shown
        if shown is None:
            begin()
        if shown is None or title != shown[0]:
            bars.close()
            shown = title, bars.enter_context(progress.task(title, length))
        shown[1](done, None)

    try:
        yield report
    finally:
        bars.close()  # the last bar ends as the others do, after an interrupt too
