"""The files of a run, and its clock."""

import csv
import json
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.device.measures import clean

FILES = ("steps.csv", "costs.csv", "syncs.csv", "curves.csv", "results.json", "profile.txt", "report.md")
STEP_COLUMNS = ("part", "network", "method", "rate", "kind", "ms", "step_ms", "host_ms", "host_step_ms")
"""Of steps.csv."""


def _age() -> float:
    """Seconds since the process began, where the system tells: imports take time too."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
    return age if 0 < age < 300 else 0.0


_BEGAN = time.perf_counter() - _age()
PROFILE_SECONDS = 40.0
"""Kept for the profile."""


class NoTimeError(Exception):
    """There is no time left for a part."""


class Deadline:
    """Seconds left of the whole run."""

    def __init__(self, minutes: float) -> None:
        self._end = _BEGAN + 60 * minutes

    def left(self, reserve: float = 0.0) -> float:
        """Until the end, less what is reserved for others."""
        return self._end - time.perf_counter() - reserve

    def need(self, seconds: float, reserve: float = 0.0) -> None:
        """Raise NoTimeError if there is less."""
        if (left := self.left(reserve)) < seconds:
            raise NoTimeError(f"{left:.0f} s left, {seconds:.0f} s needed")


class Output:
    """The files; everything is on the disk at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        self.results: dict[str, Any] = {"costs": [], "races": [], "failures": []}
        self.tables: list[str] = []

    def rows(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Append to a csv file that has these columns."""
        with (self.folder / name).open("a", newline="") as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(columns)
            writer.writerows(rows)

    def text(self, name: str, text: str) -> None:
        """Append to a text file."""
        with (self.folder / name).open("a") as file:
            file.write(text)

    def save(self) -> None:
        """results.json and report.md, as far as they are known."""
        (self.folder / "results.json").write_text(json.dumps(self.results, indent=1, default=str))
        (self.folder / "report.md").write_text(self.report())

    def report(self) -> str:
        """The tables, and what failed."""
        failures = [f"- {one['part']}: {one['error']}" for one in self.results["failures"]]
        failed = ["## Failed or skipped\n\n" + "\n".join(failures)] if failures else []
        return "\n\n".join([*self.tables, *failed]) + "\n"

    def say(self, line: str) -> None:
        """On stdout, with the seconds since the beginning."""
        print(f"[{time.perf_counter() - _BEGAN:6.1f}] {line}", flush=True)


@contextmanager
def part(out: Output, name: str) -> Iterator[None]:
    """What fails inside is written down, and the next part goes on."""
    out.say(f"{name}: begins")
    try:
        yield
    except NoTimeError as error:
        out.say(f"{name}: skipped, {error}")
        out.results["failures"].append({"part": name, "error": f"skipped: {error}"})
    except Exception as error:  # noqa: BLE001
        out.say(f"{name}: {type(error).__name__}: {error}")
        traceback.print_exc(file=sys.stdout)
        line = next(iter(str(error).splitlines()), "")
        out.results["failures"].append({"part": name, "error": f"{type(error).__name__}: {line}",
                                        "traceback": traceback.format_exc()})
    finally:
        out.save()
        clean()
