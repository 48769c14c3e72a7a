"""Run by torchrun: `pontryagin train`, in which one rank kills itself once, in a given phase of a given
iteration."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import distributed, nn

from pontryagin.cli import main
from pontryagin.optim.step import StepMaker
from pontryagin.run import checkpoint, trainer


class Killer:
    """Kills this process at the n-th call of a function, unless some process has done so before."""

    def __init__(self, mark: Path, call: int) -> None:
        self.mark, self.left = mark, call

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, deadly at that call."""
        def called(*arguments: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self.mark.exists():
                self.mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return called


def again(mark: Path) -> None:
    """Tell beside the mark when torchrun has started the processes again."""
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "1" and os.environ["RANK"] == "0":
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        since = float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
        mark.with_name("again").write_text(str(time.time() - since))


def waited(mark: Path) -> float:
    """Seconds from the kill until all had ended and were started again."""
    return float(mark.with_name("again").read_text()) - mark.stat().st_mtime


def arm(phase: str, killer: Killer) -> None:
    """Put the killer where the phase begins."""
    if phase == "forward":
        nn.Linear.forward = killer.before(nn.Linear.forward)
    elif phase == "backward":
        trainer.mean = killer.before(trainer.mean)  # the loss has just been propagated back
    elif phase == "reduce":
        distributed.all_reduce = killer.before(distributed.all_reduce)
    elif phase == "maximize":
        StepMaker.moves = killer.before(StepMaker.moves)
    else:
        checkpoint.packed = killer.before(checkpoint.packed)  # the table is ahead of the checkpoint
        os.fsync = killer.before(os.fsync)


if __name__ == "__main__":
    mark, phase, rank, call = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    again(mark)
    if os.environ["RANK"] == rank and phase != "none":
        arm(phase, Killer(mark, call))
    main(sys.argv[5:])
