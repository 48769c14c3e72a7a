"""An audit from the first check to the last file."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch

from pontryagin.audit import Audit, auditing
from pontryagin.run.auditing.files import write_files
from pontryagin.run.auditing.request import AuditSettings, requested
from pontryagin.run.environment import machine, versions
from pontryagin.run.files import prepare
from pontryagin.run.progress import Advance, Progress


def run_audit(settings: AuditSettings, command: str, progress: Progress) -> tuple[Audit | None, bool]:
    """The audit with its files in the folder, and whether it was interrupted: then true costs are missing, or
    all of it.

    Raises ExperimentError, ProblemError and NonFiniteError.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    request = requested(settings)
    prepare(settings.out, settings.overwrite)
    audit: Audit | None = None
    interrupted = False
    watch = _Watch(progress)
    try:
        for found in auditing(request.model, request.loss, request.batches, sets=settings.sets,
                              measure=settings.measure, progress=watch):
            audit = found
    except KeyboardInterrupt:
        interrupted = True
    finally:
        watch.close()
    if audit is not None:
        _write(settings, command, audit, interrupted)
    return audit, interrupted


def _write(settings: AuditSettings, command: str, audit: Audit, interrupted: bool) -> None:
    said = {name: str(value) if isinstance(value, Path) else value for name,
            value in asdict(settings).items()}
    write_files(settings.out, audit,
                {"experiment": "audit", "command": command, "interrupted": interrupted, "settings": said,
                                      "versions": versions(), "machine": machine()})


class _Watch:
    """A bar after the other, from steps as the audit tells them."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.title = progress, ""
        self._advance: Advance | None = None
        self._bars = ExitStack()

    def __call__(self, title: str, done: int, length: int) -> None:
        if title != self.title:
            self.close()
            self.title = title
            self._advance = self._bars.enter_context(self.progress.task(title, length))
        if self._advance is not None:
            self._advance(done, None)

    def close(self) -> None:
        """End the bar that is there."""
        self._bars.close()
