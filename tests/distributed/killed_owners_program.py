"""Run by torchrun: EMSA under fully_shard with a checkpoint of torch.distributed.checkpoint every second
step; one rank kills itself once, in a given phase. Rank 0 writes the weights into a file at the end."""

import os
import sys
from pathlib import Path

import torch
from killed_program import Killer, again
from owners_program import Run, entire, resumed, sharded, states
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint import FileSystemWriter

from pontryagin.distributed import join
from pontryagin.optim.owned import Owned

PLACES = {"forward": (nn.Linear, "forward"), "backward": (Tensor, "backward"), "reduce": (Owned, "moments"),
          "argmax": (Owned, "agreed"), "scatter": (Owned, "moves"), "save": (FileSystemWriter, "write_data")}
"""Where each phase begins; "start" is before the processes know of each other."""
STEPS, EVERY, TIMEOUT = 8, 2, 20.0


def arm(phase: str, killer: Killer) -> None:
    """Put the killer where the phase begins."""
    if phase == "start":
        killer.before(lambda: None)()
    elif phase in PLACES:
        kind, name = PLACES[phase]
        setattr(kind, name, killer.before(getattr(kind, name)))


def main(folder: Path) -> None:
    """Go on from the last whole checkpoint, if there is one, to the last step."""
    with join(TIMEOUT) as communicator:
        rank, ranks = communicator.rank, communicator.size
        mesh, last = distributed.init_device_mesh("cpu", (ranks,)), folder / "last"
        run = Run("mlp", sharded, mesh, rank, ranks)
        done = int(last.read_text()) if last.exists() else 0
        if done:
            resumed(run.skip(range(done)), folder / f"step{done}")
        for step in range(done, STEPS):
            run.steps(range(step, step + 1))
            if (step + 1) % EVERY == 0:
                checkpoint.save(states(run), checkpoint_id=folder / f"step{step + 1}")
                if rank == 0:
                    new = folder / "last.new"
                    new.write_text(str(step + 1))
                    new.replace(last)
                distributed.barrier()
        found = [entire(parameter) for parameter in run.model.parameters()]
        if rank == 0:
            torch.save(found, folder / "weights.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, phase, rank, call = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    again(folder / "mark")
    if os.environ["RANK"] == rank:
        arm(phase, Killer(folder / "mark", call))
    main(folder)
