"""Run by a test: forks of this process are the ranks of small runs, in which some end. Prints as JSON what
every rank of every run said."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, nn

from pontryagin.distributed import Communicator, join
from pontryagin.errors import LostProcessError, ProblemError
from pontryagin.run.processes import processes, share_pass


def killed(group: Communicator) -> str:
    """Without a word."""
    if group.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return together(group)


def raised(group: Communicator) -> str:
    """By an error of its own."""
    if group.rank == 1:
        raise ProblemError("the data of rank 1 are wrong")
    return together(group)


def interrupted(group: Communicator) -> str:
    """By Ctrl-C."""
    if group.rank == 1:
        raise KeyboardInterrupt
    return together(group)


def late(group: Communicator) -> str:
    """The others wait for the one that has most to do."""
    time.sleep(0.5 * group.rank)
    return "well"


def together(group: Communicator) -> str:
    """Until somebody is missed."""
    while True:
        group.sum(torch.ones(3))


def wrapped(group: Communicator) -> str:
    """As user code is called: the loss of a rank is the cause of another error."""
    try:
        return killed(group)
    except RuntimeError as error:
        raise ProblemError("the network failed") from error


def shared(group: Communicator) -> str:
    """Gradients that one, all and no rank has, of several kinds; buffers."""
    model = nn.Module()
    for name, value in {"all": torch.zeros(2), "one": torch.zeros(3, dtype=torch.float64),
                        "none": torch.zeros(1), "complex": torch.zeros(2, dtype=torch.complex64)}.items():
        model.register_parameter(name, nn.Parameter(value))
    model.table = nn.Embedding(4, 2, sparse=True)
    for name, kind in (("count", torch.int64), ("mask", torch.bool), ("brief", torch.bfloat16)):
        model.register_buffer(name, torch.full((2,), group.rank).to(kind))
    loss = (group.rank + 1) * (model.all.sum() + model.complex.real.sum())
    loss = loss + model.table(torch.tensor([group.rank])).sum()
    if group.rank == 1:
        loss = loss + 6 * model.one.sum()
    loss.backward()
    share_pass(model)
    found = {name: None if each.grad is None else torch.view_as_real(each.grad.to(torch.complex128)
                                                                    )[..., 0].flatten().tolist()
             for name, each in model.named_parameters()}
    return json.dumps(found | {name: each.float().tolist() for name, each in model.named_buffers()})


def alone(group: Communicator) -> str:
    """The others never come."""
    return "well"


RUNS: dict[Callable[[Communicator], str], int] = {
    killed: 3, raised: 2, interrupted: 3, late: 3, wrapped: 2, shared: 2, alone: 1}
"""How many of the processes of a run begin."""


def rank_of(run: Callable[[Communicator], str], rank: int, store: distributed.TCPStore, size: int) -> str:
    """What it comes to; a fork ends in here."""
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "RANK": str(rank),
                       "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "TORCHELASTIC_RUN_ID": "lost",
                       "TORCHELASTIC_USE_AGENT_STORE": "True", "GLOO_SOCKET_IFNAME": "lo"})
    try:
        with (processes() if run is shared else join(1.0 if run is alone else 30.0)) as group:
            return run(group)
    except LostProcessError as error:
        return f"lost {error.interrupted}: {error}"
    except BaseException as error:  # noqa: BLE001 # which is what the test looks for
        return f"{type(error).__name__}: {error}"


def said(run: Callable[[Communicator], str], size: int) -> list[str]:
    """By rank; nothing by one that was killed."""
    store = distributed.TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False)
    pipes = []
    for rank in range(size if run is not alone else 1):
        read, write = os.pipe()
        if not os.fork():
            os.write(write, rank_of(run, rank, store, 2 if run is alone else size).encode())
            os._exit(0)
        os.close(write)
        pipes.append(read)
    found = []
    for read in pipes:
        with os.fdopen(read) as pipe:
            found.append(pipe.read())
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return found


def main() -> None:
    """See above."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {run.__name__: said(run, size) for run, size in RUNS.items()}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
