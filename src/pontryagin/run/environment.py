"""On what a run is made, in words that a reader can compare; threads, and the clock of the method alone."""

import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter

import torch


def versions() -> dict[str, str]:
    """Of Python and of the packages that matter, "absent" for those not installed."""
    found = {"python": platform.python_version()}
    for package in ("pontryagin", "torch", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def machine() -> dict[str, str | int]:
    """System, processor and threads."""
    return {"system": f"{platform.system()} {platform.machine()}", "processor": _processor(),
            "threads": torch.get_num_threads(), "byteorder": sys.byteorder}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """torch works with so many threads inside (None: as before), and with as many as before afterwards.

    One is customary: small matrices are slower on several, and comparisons unfair.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Stopwatch:
    """Seconds between start() and pause(), added up: of the method, not of its evaluation."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.seconds, self._clock = 0.0, clock
        self._since: float | None = None

    def start(self) -> None:
        """Go on."""
        self._since = self._clock()

    def pause(self) -> float:
        """Stop, and return all seconds so far."""
        if self._since is not None:
            self.seconds += self._clock() - self._since
            self._since = None
        return self.seconds
