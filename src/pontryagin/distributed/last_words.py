"""What the processes of a run know of each other's end: the first cause, and who has gone without a word."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import distributed

from pontryagin.distributed.communicator import Communicator
from pontryagin.errors import LostProcessError

_MOST = 300
"""Characters of an error that the others are told."""
_WITHIN = 2.0
"""Seconds within which a process that has closed its connections is seen to have ended."""
_STEP = 0.02
"""Seconds between two looks."""


def lost(error: BaseException | None) -> bool:
    """Whether torch.distributed raised it, or what it comes from, because another process does not answer."""
    while error is not None:
        if isinstance(error, distributed.DistError) or (
                isinstance(error, RuntimeError) and "gloo" in str(error).lower()):
            return True
        error = error.__cause__ or error.__context__
    return False


def not_met(size: object, timeout: float, why: str) -> LostProcessError:
    """That not all of so many have come."""
    return LostProcessError(f"not all {size} processes have met within {timeout:g} seconds ({why}): one was "
                            "not started, cannot be reached, or has died; look at its message")


def meet(store: distributed.Store, rank: int, size: int, timeout: float) -> None:
    """Wait for all ranks, so that signals are heard meanwhile. Raises LostProcessError after `timeout`
    seconds."""
    store.set(f"here {rank}", "")
    end = time.monotonic() + timeout
    missing = list(range(size))
    while missing := [one for one in missing if not store.check([f"here {one}"])]:
        if time.monotonic() > end:
            raise not_met(size, timeout, f"rank {', '.join(map(str, missing))} has not come")
        time.sleep(_STEP)


class LastWords:
    """Between processes that have met. store: that they share."""

    def __init__(self, store: distributed.Store, communicator: Communicator) -> None:
        self.store, self.rank, self.size = store, communicator.rank, communicator.size
        self.places: list[tuple[str, int]] = communicator.gather((socket.gethostname(), os.getpid()))
        self.parent = os.getppid()

    @contextmanager
    def spoken(self) -> Iterator[None]:
        """All leave together. What ends this process before is told to the others; where another one's end is
        the cause, LostProcessError is raised, with the first cause of all."""
        try:
            yield
            self._leave()
        except BaseException as error:
            try:
                other = self._other(error)
            except KeyboardInterrupt:  # torchrun ends those that are left
                other = self._other(error)
            if other is not None:
                raise other from error
            interrupted = isinstance(error, KeyboardInterrupt)
            told = "interrupted" if interrupted else " ".join(str(error).split())[:_MOST] or repr(error)
            if self._keeper_ended() is None:
                self._first({"rank": self.rank, "words": told, "interrupted": interrupted})
            raise

    def _leave(self) -> None:
        """Wait for the others: torchrun ends those that are at work when one has ended otherwise than well,
        as an interrupted one does."""
        self.store.set(f"left {self.rank}", "")
        names = [f"left {rank}" for rank in range(self.size)]
        while not (self.store.check(names) or self.store.check(["first"]) or self._gone()):
            time.sleep(_STEP)

    def _other(self, error: BaseException) -> LostProcessError | None:
        """The end of another process, if it is why this one ends."""
        interrupted = isinstance(error, KeyboardInterrupt)
        if not interrupted and not lost(error):
            return None
        gone = self._gone(0.0 if interrupted else _WITHIN)
        words = f"rank {' and '.join(map(str, gone))} ended without a word, as a killed process does"
        if (keeper := self._keeper_ended(gone)) is not None:
            return LostProcessError(f"{keeper} ended without a word, as a killed process does")
        first = self._first({"rank": gone[0], "words": words, "interrupted": False} if gone else None)
        if first is None or first["rank"] == self.rank or (interrupted and first["interrupted"]):
            return None if interrupted else LostProcessError(
                f"another process does not answer ({' '.join(str(error).split())[:_MOST]})")
        known = first["words"].startswith("rank ")
        return LostProcessError(first["words"] if known else f"rank {first['rank']} ended: {first['words']}",
                                interrupted=first["interrupted"])

    def _first(self, cause: dict[str, Any] | None) -> dict[str, Any] | None:
        """The first cause: this one, unless another has been told before."""
        if cause is None:
            return json.loads(self.store.get("first")) if self.store.check(["first"]) else None
        return json.loads(self.store.compare_set("first", "", json.dumps(cause)))

    def _keeper_ended(self, gone: list[int] | None = None) -> str | None:
        """Who kept the store, where that one has ended: torchrun, or rank 0."""
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return "torchrun" if os.getppid() != self.parent else None
        return "rank 0" if 0 in (self._gone() if gone is None else gone) else None

    def _gone(self, seconds: float = 0.0) -> list[int]:
        """Ranks on this machine whose processes have ended, as soon as there are some."""
        end = time.monotonic() + seconds
        while True:
            found = [rank for rank, (machine, process) in enumerate(self.places)
                     if machine == socket.gethostname() and _ended(process)]
            if found or time.monotonic() >= end:
                return found
            time.sleep(_STEP)


def _ended(process: int) -> bool:
    """Also where its parent has not asked for its status yet."""
    try:
        if Path("/proc/self/stat").exists():
            state = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
            return state.rpartition(")")[2].split()[0] in "ZX"
        os.kill(process, 0)
    except OSError:
        return True
    return False
