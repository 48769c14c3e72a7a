"""Time, memory and synchronizations of the device; on a CPU there is time alone."""

import gc
import os
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

_REPOSITORY = Path(__file__).resolve().parents[2]
GIB = 2.0**30


def wait() -> None:
    """Until the device is idle."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def clean() -> None:
    """Give back what is no longer used."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak() -> float:
    """GiB since forget_peak; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else 0.0


class Marks:
    """Points in time of the device's work; the host does not wait for them."""

    def __init__(self, device: torch.device) -> None:
        self._marks: list[Any] = []
        self._on_gpu = device.type == "cuda"

    def mark(self) -> None:
        """Now, in the order of the device's work."""
        if self._on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def milliseconds(self) -> list[float]:
        """From each mark to the next."""
        wait()
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return [one.elapsed_time(other) if self._on_gpu else 1e3 * (other - one) for one, other in pairs]


class Syncs:
    """Counts operations that wait for the device, by phase and call site, from torch's debug mode."""

    def __init__(self) -> None:
        self.phase = ""
        self.sites: Counter[tuple[str, str, str]] = Counter()
        """By phase, the innermost line in this repository, and the line that torch names."""

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Every such warning inside; without a GPU there are none."""
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = self._shown  # put back by catch_warnings
            if torch.cuda.is_available() and hasattr(torch.cuda, "set_sync_debug_mode"):
                torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                if torch.cuda.is_available() and hasattr(torch.cuda, "set_sync_debug_mode"):
                    torch.cuda.set_sync_debug_mode("default")

    def _shown(self, message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
        if "synchronizing" not in str(message) or "prototype" in str(message):
            return
        self.sites[self.phase, _own_line(), _short(filename, lineno)] += 1


def _own_line() -> str:
    """The innermost line of pontryagin's that is running in this thread, else of this file's."""
    stack = [frame for frame in traceback.extract_stack() if str(_REPOSITORY) in frame.filename]
    own = [frame for frame in stack if "pontryagin" in frame.filename.replace(str(_REPOSITORY), "")]
    outside = [frame for frame in stack if frame.name not in ("_shown", "_own_line")]
    frame = (own or outside or traceback.extract_stack())[-1]
    return f"{_short(frame.filename, frame.lineno or 0)} {frame.name}: {(frame.line or '').strip()[:110]}"


def _short(filename: str, line: int) -> str:
    path = filename.replace(f"{_REPOSITORY}{os.sep}", "")
    return f"{path.rpartition('site-packages' + os.sep)[2]}:{line}"
