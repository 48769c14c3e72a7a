"""What a run is made of, in a few numbers: data, the network at its start, loss and metric. They tell whether
a run that goes on, or a process beside it, has the same."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pontryagin.distributed.agreement import digest, require_same, versions, words
from pontryagin.optim.snapshot import generator_states, seed_generators, set_generators
from pontryagin.run.processes import present
from pontryagin.run.samples import TensorSamples
from pontryagin.run.task import Task
from pontryagin.run.trainer import output_of
from pontryagin.run.user_code import call

_READ = 64
"""Samples of a Dataset that are read to tell it from another, and on which the network is evaluated."""
_LOOKS = 4
"""At what seems to be another: a transform that one sample in fifty meets is seen by them in 998 of 1000
runs."""
_DIRECTIONS = 4
_BLOCK, _ROWS = 1 << 22, 1 << 16
"""Entries that are projected at once, 16 MB, in at most so many rows."""
_TOLERANCES = {"network outputs": 1e-2, "loss": 1e-2, "gradient": 1e-2, "metric": 1e-2}
"""Relative, of what is computed: TensorFloat-32 and other kernels of another GPU are within it, while another
activation changes outputs by a tenth and more. Of what is given, 1e-4: sums of another number of threads."""

Fact = Mapping[str, Any]
"""words: for people, with a digest of every value. exact: a digest of shapes, dtypes and whole numbers.
numbers: of what is floating point, projections on random directions, a list for each group of tensors."""
Facts = Mapping[str, Fact]


def facts_of(task: Task) -> dict[str, Fact]:
    """By name: training, test and validation data, initial weights (of seed 0), network outputs, loss,
    gradient, metric, each resting on those before it. Of samples in memory all count, of others 64 at even
    distances. Global generators are seeded meanwhile, and left as they were. Raises ExperimentError."""
    states = generator_states()
    try:
        return {name: _fact(words, *groups) for name, words, *groups in _parts(task)}
    finally:
        set_generators(states)


def _parts(task: Task) -> Iterator[tuple[Any, ...]]:
    """Name, words and groups of tensors of each fact."""
    read = {}
    for part, samples in task.parts().items():
        seed_generators(0)
        read[part] = samples.rows(torch.arange(0, len(samples), max(len(samples) // _READ, 1))[:_READ])
        whole = (samples.inputs, samples.targets) if isinstance(samples, TensorSamples) else read[part]
        leaves: list[Tensor] = tree_leaves(whole)
        shapes = ", ".join(str(tuple(each.shape[1:])) for each in leaves)
        yield (f"{'training' if part == 'train' else part} data", f"{len(samples)} samples of {shapes}",
               *([each] for each in leaves))
    seed_generators(0)
    model = task.build()
    weights = [each for each in model.state_dict().values() if isinstance(each, Tensor)]
    yield "initial weights", f"{sum(each.numel() for each in weights):,} numbers", weights
    seed_generators(0)
    inputs, targets = task.train.rows(torch.arange(min(2, len(task.train))))
    output = output_of(model.train(), inputs)
    loss = task.objective.mean(output, targets)
    call(loss.backward, {}, f"{task.name}, the backward pass of two samples")
    gradient = [each.grad for each in model.parameters() if each.grad is not None]
    with torch.no_grad():
        inputs, targets = read["train"]
        outputs = output_of(model.eval(), inputs)
        value = call(task.objective.mean, {"output": outputs, "target": targets},
                     f"{task.name}, loss {task.objective.name}")
        yield "network outputs", f"{tuple(outputs.shape)}", [output], [outputs]
        yield "loss", f"{value.item():.6g}", [loss], [value]
        yield "gradient", f"of {len(gradient)} parameters", gradient
        if task.metric is not None:
            found = torch.tensor(task.metric(outputs, targets), dtype=torch.float64)
            yield "metric", f"{found.item():.6g}", [found]


def _fact(words: str, *groups: Sequence[Tensor]) -> Fact:
    plain = [[each.detach().to_dense().cpu() for each in group] for group in groups]
    flat = [each for group in plain for each in group]
    exact = digest(*(each[None][:0] if each.is_floating_point() else each for each in flat))
    floating = digest(*(each for each in flat if each.is_floating_point()))
    return {"words": f"{words}, digest {exact[:8]}{floating[:8]}", "exact": exact,
            "numbers": [_projected(group) for group in plain]}


def _projected(values: Sequence[Tensor]) -> list[float]:
    """sum_ij a_ik x_ij b_jk over all tensors x of floating point numbers, for each of a few k: of a size near
    |x|. a and b: random of mean square 1, the same for equal shapes. What is not finite counts as 0."""
    generator, found = torch.Generator().manual_seed(0), torch.zeros(_DIRECTIONS, dtype=torch.float64)

    def normal(count: int) -> Tensor:
        return torch.randn(count, _DIRECTIONS, generator=generator, dtype=torch.float64)

    for each in values:
        if each.is_floating_point():
            rows = torch.atleast_1d(each).unsqueeze(-1).flatten(1)
            kind = torch.float64 if each.dtype == torch.float64 else torch.float32
            across, along = normal(rows.shape[1]).to(kind), normal(min(len(rows), _ROWS))
            for block in rows.split(max(min(_ROWS, _BLOCK // max(rows.shape[1], 1)), 1)):
                finite = block.to(kind).nan_to_num(0.0, 0.0, 0.0)
                found += ((finite @ across).double() * along[:len(block)]).sum(0) * normal(1)[0]
    return found.tolist()


def alike(name: str, one: Fact, other: Fact) -> bool:
    """Whether two facts of this name are of the same thing, but for rounding."""
    if one["words"] == other["words"]:
        return True
    a, b = (torch.tensor(each["numbers"], dtype=torch.float64) for each in (one, other))
    return bool(one["exact"] == other["exact"] and a.shape == b.shape and (
        (a - b).abs().amax(1) <= _TOLERANCES.get(name, 1e-4) * a.abs().amax(1)).all())


def differing(then: Facts, now: Facts, again: Callable[[], Facts]) -> list[str]:
    """The names of the facts that are others now. again: computes those of now anew; what is not the same by
    that to the last bit, as of a Dataset with a generator of its own, says nothing, nor what rests on it."""
    found = [name for name in now if name not in then or not alike(name, then[name], now[name])]
    looks = [again() for _ in range(_LOOKS if found else 0)]
    drawn = {name for look in looks for name in now if now[name]["words"] != look[name]["words"]}
    if drawn & {"training data", "initial weights", "network outputs"}:
        drawn |= _TOLERANCES.keys()
    return [name for name in found if name not in drawn]


def require_same_run(description: dict[str, Any], settings: dict[str, Any], facts: Facts,
                     again: Callable[[], Facts]) -> None:
    """Refuse processes of other versions, settings or facts; of initial weights the last bit counts. Raises
    ProblemError on all."""
    communicator = present()
    if communicator.size > 1:
        first: Facts = communicator.gather(dict(facts))[0]
        others = differing(first, facts, again)[:1]
        told = {name: facts[name]["words"] for name in ("initial weights", *others)}
        require_same(communicator, {
            **versions(), "task": _short(description), "settings and seeds": _short(settings),
            **{name: fact["words"] for name, fact in first.items()}, **told})


def _short(value: object) -> str:
    text = words(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({hashlib.sha256(text.encode()).hexdigest()[:12]})"
