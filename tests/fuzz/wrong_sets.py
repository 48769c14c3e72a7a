"""Data sets, networks and files of models of users, most of them wrong, from a seed."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pontryagin.run import checkpoint

SAMPLES = 12


class Items(Dataset):
    """Of a list, or what a row raises."""

    def __init__(self, items: list[Any], length: Any) -> None:
        self.items, self.length = items, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> Any:
        item = self.items[row]
        if isinstance(item, BaseException):
            raise item
        return item


class Net(nn.Module):
    """A linear map of all entries of a sample, and what is done with its output."""

    def __init__(self, inputs: int, outputs: int, after: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.map, self.after = nn.Linear(inputs, outputs), after

    def forward(self, x: Tensor) -> Any:
        return self.after(self.map(x.flatten(1).to(self.map.weight.dtype)))


def _leave(output: Tensor) -> Any:
    raise SystemExit(0)


AFTER: list[Callable[[Tensor], Any]] = [
    *[lambda output: output] * 6, lambda output: (output, output), lambda output: {"logits": output},
    lambda output: SimpleNamespace(logits=output), lambda output: output.sum(), lambda output: None,
    lambda output: output[0], lambda output: output.nothing, lambda output: output.unsqueeze(-1), _leave,
    lambda output: output * float("nan")]


def data_set(generator: random.Random) -> tuple[Any, Callable[[], nn.Module]]:
    """What a `load` of a user returns, and the `net` beside it."""
    torch.manual_seed(generator.randrange(2**31))
    shape = generator.choice([(3,), (3,), (1, 2, 2), (2, 3), (0,), ()])
    classes, count = generator.choice([1, 2, 4]), int(np.prod(shape))
    parts = [_part(shape, classes, generator) for _ in range(generator.choice((2, 2, 2, 2, 3, 1)))]
    after = generator.choice(AFTER)
    found: Any = tuple(parts)
    if generator.random() < 0.1:
        found = generator.choice([dict(zip(("train", "test", "validation"), parts, strict=False)), parts[0],
                                  None, 3, [], [1.0] * 1000, "x", iter(parts), {"train": parts[0]}])
    return found, lambda: Net(count, classes, after)


def _part(shape: tuple[int, ...], classes: int, generator: random.Random) -> Any:
    if generator.random() < 0.1:
        shape = (*shape, 2)
    inputs = torch.rand(SAMPLES, *shape)
    targets: Any = torch.randint(classes, (SAMPLES,))
    change = generator.randrange(16)
    inputs = {0: inputs.double(), 1: (inputs * 9).long(), 2: inputs.to_sparse(),
              3: inputs.to(torch.complex64), 4: inputs.to("meta"), 5: inputs / 0}.get(change, inputs)
    targets = {6: targets + 1, 7: targets - 1, 8: targets.float(), 9: targets[:5], 10: targets.unsqueeze(1),
               11: torch.full_like(targets, -100), 12: targets.bool(),
               13: targets.float().unsqueeze(1)}.get(change,
                                                                                                          targets)
    if generator.random() < 0.4:
        return inputs, targets
    if generator.random() < 0.2:
        return generator.choice([[0.5] * 99, inputs, (inputs.numpy() if change > 5 else inputs, targets),
                                 np.array(["a", "b"]), (inputs,), [inputs, targets], 5, "text"])
    items: list[Any] = [(inputs[row % len(inputs)], targets[row % len(targets)]) for row in range(SAMPLES)]
    row = generator.randrange(SAMPLES)
    items[row] = generator.choice([
        *[items[row]] * 4, (inputs[0], 10**6), ("a", 0), None, (torch.rand(7), 0), 3, (inputs[0],),
        {"x": inputs[0]}, {"x": inputs[0], "labels": 0}, KeyError("x"), SystemExit(0),
        RuntimeError("broken\n" * 99), IndexError(row), (np.zeros(3), np.int64(0)), (inputs[0], "a"),
        ((inputs[0], inputs[0]), 0), (inputs[0], None)])
    return Items(items, generator.choice([SAMPLES] * 5 + [SAMPLES + 5, 0, 10**12]))


RECIPE = (["--validation", "0.3"], ["--validation", "own"], ["--patience", "1"],
          ["--metric", "theirs:metric"], ["--collate", "theirs:collate"],
          ["--class-weights", "balanced"], ["--class-weights", "1,2,0.5,1"],
          ["--warm-up", "1"], ["--autocast"], ["--num-workers", "1"])
"""Words of `train`."""


def recipe(generator: random.Random) -> tuple[list[str], Callable[..., Any], Callable[..., Any]]:
    """Some words of a recipe, a metric and a collate function."""
    words = [word for each in generator.sample(RECIPE, generator.choice((0, 0, 1, 2, 3))) for word in each]
    metric = generator.choice([lambda output, target: output.sum(), lambda output, target: None,
                               lambda output, target: target / 0 / [], lambda output: 1, lambda *_: "x",
                               lambda *_: float("nan"), lambda *_: torch.zeros(3)])
    collate = generator.choice([
        *[lambda items: torch.utils.data.default_collate(items)] * 2, lambda items: None,
        lambda items: (items, items), lambda items: items[99],
        lambda items: {"x": torch.zeros(len(items), 3), "labels": torch.zeros(len(items)).long()},
        lambda items: (torch.zeros(1), torch.zeros(9)), lambda: 3])
    return words, metric, collate


def page_files(folder: Path, generator: random.Random) -> None:
    """A changed file of a run: a value of its summary, or bytes of its table."""
    path = folder / generator.choice(["summary.json", "summary.json", "metrics.csv"])
    content = path.read_bytes()
    if path.suffix == ".csv" or generator.random() < 0.2:
        changed = bytearray(content)
        for _ in range(generator.randrange(1, 4)):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        if generator.random() < 0.3:
            del changed[generator.randrange(len(changed)):]
        path.write_bytes(changed)
        return
    summary = json.loads(content)
    held, key = summary, generator.choice(list(summary))
    while isinstance(held[key], dict) and held[key] and generator.random() < 0.8:
        held = held[key]
        key = generator.choice(list(held))
    held[key] = generator.choice([None, -1, 10**30, "x", [], {}, [{"a": 1}], {"a": {"b": None}}, True, 0.5,
                                  "running"])
    if generator.random() < 0.2:
        del held[key]
    path.write_text(json.dumps(summary | ({"state": "running"} if generator.random() < 0.3 else {})))


def model_file(whole: bytes, content: dict[str, Any], path: Path, generator: random.Random) -> None:
    """A changed file of a model: bits, ends, or another content under a right seal."""
    changed, kind = bytearray(whole), generator.randrange(5)
    if kind == 0:
        for _ in range(generator.randrange(1, 4)):
            changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    elif kind == 1:
        del changed[generator.randrange(len(changed)):]
    elif kind == 2:
        changed = bytearray(generator.randbytes(generator.randrange(300)))
    elif kind == 3:
        torch.save(generator.choice([[1], {}, {3: torch.ones(2)}, {"a": torch.ones(1).expand(9, 9)},
                                     torch.ones(2), {"a": torch.eye(2).to_sparse()}, {"model": {"a": 3}},
                                     nn.Linear(1, 1)]), path)
        return
    else:
        new = generator.choice([None, -1, 10**9, 2.5, "x", [], {}, {"a": torch.ones(2)}, True])
        checkpoint.write(path,
                         {**content, generator.choice([key for key in content if key != "format"]): new})
        return
    path.write_bytes(changed)
