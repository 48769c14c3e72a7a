"""Who looks at the jobs of a run between their timed steps."""

from collections.abc import Sequence
from typing import Protocol

from pontryagin.run.job import Job, Point


class Watcher(Protocol):
    """Sees every iteration of every job; changes nothing of them."""

    def begin(self, jobs: Sequence[Job]) -> None:
        """These jobs take turns now, each from its iteration on: anew, or resumed."""

    def before(self, job: Job) -> None:
        """An iteration."""

    def after(self, job: Job, point: Point) -> None:
        """The iteration."""

    def end(self) -> None:
        """They have stopped."""


class Unwatched:
    """Nobody."""

    def begin(self, jobs: Sequence[Job]) -> None:
        """Nothing."""

    def before(self, job: Job) -> None:
        """Nothing."""

    def after(self, job: Job, point: Point) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""
