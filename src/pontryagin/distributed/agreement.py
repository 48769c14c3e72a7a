"""All ranks or none: the same start everywhere, and an error of one rank raised by all."""

import hashlib
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

import torch
from torch import Tensor

from pontryagin.distributed.communicator import Communicator
from pontryagin.problem import ControlProblem, Controls, NoMaximumError, NonFiniteError, ProblemError


def require_same(communicator: Communicator, facts: Mapping[str, str]) -> None:
    """Refuse to start when ranks differ in any of the facts (versions, model, data, ...), as texts or hashes:
    every rank raises the same ProblemError, naming the fact, the values and the ranks that have them."""
    found: list[Mapping[str, str]] = communicator.gather(dict(facts))
    for fact in sorted({name for one in found for name in one}):
        ranks: dict[str, list[int]] = {}
        for rank, one in enumerate(found):
            ranks.setdefault(one.get(fact, "nothing"), []).append(rank)
        if len(ranks) > 1:
            listed = "; ".join(f"{value} on rank {', '.join(map(str, owners))}"
                               for value, owners in ranks.items())
            raise ProblemError(f"the processes do not agree on the {fact}: {listed}; start all of them with "
                               "the same software, model, data, seed and settings")


def raise_together(communicator: Communicator, error: Exception | None) -> None:
    """Every rank raises when one has an error: its own, or that of the lowest rank that has one, in
    its kind. Costs a small sum."""
    if communicator.size == 1:
        if error is not None:
            raise error
        return
    if not communicator.sum(torch.tensor(float(error is not None))):
        return
    found = communicator.gather(None if error is None else (type(error).__name__, str(error)))
    if error is not None:
        raise error
    rank, (kind, message) = next((rank, one) for rank, one in enumerate(found) if one is not None)
    known = {one.__name__: one for one in (NonFiniteError, NoMaximumError)}.get(kind, ProblemError)
    raise known(f"rank {rank}: {message}")


@contextmanager
def all_or_none(communicator: Communicator) -> Iterator[None]:
    """A part that every rank does: what one raises, all raise."""
    error: Exception | None = None
    try:
        yield
    except (ProblemError, NonFiniteError) as caught:
        error = caught
    raise_together(communicator, error)


def versions() -> dict[str, str]:
    """Of python, torch and this package."""
    return {"version of python": platform.python_version(), "version of torch": torch.__version__,
            "version of pontryagin": version("pontryagin")}


def digest(*tensors: Tensor) -> str:
    """A short hash of shapes, dtypes and every value."""
    result = hashlib.sha256()
    for tensor in tensors:
        result.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        plain = tensor.detach().cpu().contiguous()
        result.update(plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b"")
    return result.hexdigest()[:16]


def words(value: object) -> str:
    """repr without addresses, which differ between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def problem_facts(problem: ControlProblem, controls: Controls) -> dict[str, str]:
    """What two ranks must share of a control problem."""
    stages = [(stage.name, stage.layout, stage.step_size, words(stage.running_cost), words(stage.admissible))
              for stage in problem.stages]
    return {"stages": hashlib.sha256(repr(stages).encode()).hexdigest()[:16],
            "number of stages": str(len(stages)),
            "data": digest(problem.initial_state, problem.target), "controls": digest(*controls)}
