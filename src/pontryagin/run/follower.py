"""The run folder of the processes that write nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pontryagin.distributed import Communicator
from pontryagin.distributed.agreement import raise_together
from pontryagin.run.errors import ExperimentError
from pontryagin.run.history import History
from pontryagin.run.job import Job, Point
from pontryagin.run.run_folder import RunFolder


class Follower:
    """Knows what rank 0 found in the folder, and keeps the history that decisions rest on. See RunFolder."""

    def __init__(self, saved: dict[str, Any] | None) -> None:
        self.saved, self.history = saved, History()
        self.tuning: dict[str, dict[float, float]] = saved["tuning"] if saved else {}

    def record(self, job: Job, point: Point) -> None:
        """Into the history alone."""
        self.history.take(job, point)

    def checkpoint_if_due(self, index: int, jobs: Sequence[Job]) -> None:
        """Rank 0 does."""

    def checkpoint(self, index: int, jobs: Sequence[Job]) -> None:
        """Rank 0 does."""

    def save_model(self, job: Job, point: Point) -> None:
        """Rank 0 does."""

    def report_if_due(self) -> None:
        """Rank 0 does."""

    def report(self, state: str) -> Path | None:
        """Rank 0 does."""
        return None


def open_together(communicator: Communicator,
                  folder: "RunFolder | ExperimentError | None") -> RunFolder | Follower:
    """The folder on rank 0, a Follower that knows its checkpoint on the others; all raise what kept rank 0
    from opening it.

    folder: rank 0's, or why there is none; None on the others.
    """
    raise_together(communicator, folder if isinstance(folder, ExperimentError) else None)
    saved = communicator.gather(folder.saved if isinstance(folder, RunFolder) else None)[0]
    return folder if isinstance(folder, RunFolder) else Follower(saved)
