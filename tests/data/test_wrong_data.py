"""Data and networks of users: what people have is taken, what cannot be is one line before any work."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pontryagin.cli import main
from pontryagin.run.user_code import kind_of

INPUTS = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(30) % 4
COMMAND = ["train", "--model", "theirs:net", "--data", "theirs:load", "--batch-size", "10", "--iterations",
           "4",
           "--out", "run"]


class Rows(Dataset):
    """Items from a function of the row."""

    def __init__(self, item: Callable[[int], Any], length: Any = 30) -> None:
        self.item, self.length = item, length

    def __len__(self) -> int:
        return self.length() if callable(self.length) else self.length

    def __getitem__(self, row: int) -> Any:
        return self.item(row)


class Own(nn.Module):
    """A linear map and what a user does after it."""

    def __init__(self, after: Callable[[Tensor], Any] = lambda output: output, inputs: int = 3) -> None:
        super().__init__()
        self.map, self.after = nn.Linear(inputs, 4), after

    def forward(self, x: Tensor) -> Any:
        return self.after(self.map(x))


class Named(Own):
    """Of two inputs by their names, as a model of Hugging Face."""

    def forward(self, ids: Tensor, mask: Tensor) -> Any:  # type: ignore[override]
        return SimpleNamespace(logits=self.map(ids * mask))


class Two(Own):
    """Of a pair of inputs."""

    def forward(self, pair: Any) -> Any:
        return self.map(pair[0] + pair[1])


class InTraining(Own):
    """Of one mode."""

    def forward(self, x: Tensor) -> Any:
        if not self.training:
            raise ValueError("not for evaluation")
        return self.map(x)


class Hollow(nn.Module):
    """Never begun."""

    def __init__(self) -> None:
        pass


class UnspokenError(Exception):
    """Has no words."""

    def __str__(self) -> str:
        raise RuntimeError


def cut(row: int) -> Any:
    if row >= 20:
        raise IndexError("no more")
    return INPUTS[row], row % 4


def failing(error: BaseException) -> Callable[[int], Any]:
    def item(row: int) -> Any:
        if row == 7:
            raise error
        return INPUTS[row], row % 4

    return item


def cancelled(output: Tensor) -> Tensor:
    """Raises what is no Exception."""
    raise asyncio.CancelledError


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
          ) -> Callable[..., tuple[int, str]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pontryagin.run.reports.training.write_report", lambda *_: None)

    def run(data: Any, net: Callable[[], nn.Module] = Own, *arguments: str) -> tuple[int, str]:
        theirs = SimpleNamespace(load=lambda: data, net=net, __name__="theirs", __file__="theirs.py")
        monkeypatch.setitem(sys.modules, "theirs", theirs)  # type: ignore[arg-type]
        with pytest.raises(SystemExit) as ended:
            main([*COMMAND, *arguments])
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


TEST = (INPUTS[:10], CLASSES[:10])


@pytest.mark.parametrize(("data", "net"), [
    (((INPUTS.numpy(), CLASSES.numpy()), TEST), Own),
    ((Rows(lambda row: (INPUTS[row].numpy(), np.int64(row % 4))), TEST), Own),
    ((Rows(lambda row: [INPUTS[row], row % 4]), TEST), Own),
    ((Rows(lambda row: {"ids": INPUTS[row], "mask": torch.ones(3), "labels": row % 4}),) * 2, Named),
    ((Rows(lambda row: ((INPUTS[row], INPUTS[-row]), row % 4)),) * 2, Two),
    (((INPUTS[:, None].repeat(1, 5, 1), CLASSES[:, None].repeat(1, 5)),) * 2, Own),  # (sample, time, class)
    (((INPUTS, CLASSES), TEST), lambda: Own(lambda output: SimpleNamespace(logits=output))),
    *((((INPUTS, CLASSES.to(kind)), TEST), Own)
      for kind in (torch.int8, torch.int16, torch.int32, torch.uint8, torch.bool)),
    ((Rows(lambda row: (INPUTS[row], np.int32(row % 4))), TEST), Own),
    (((INPUTS.numpy(), CLASSES.numpy().astype(np.uint16)), TEST), Own),
    (((INPUTS.numpy().astype(">f4"), CLASSES.numpy().astype(">i8")), TEST), Own),
    (((INPUTS.numpy().astype(np.longdouble), CLASSES.numpy()[::-1]), TEST), Own)])
def test_what_people_have_is_taken(data: Any, net: Callable[[], nn.Module],
                                   train: Callable[..., tuple[int, str]]) -> None:
    assert train(data, net) == (0, "")


@pytest.mark.parametrize(("data", "net", "told"), [
    (((INPUTS, CLASSES + 1), TEST), Own,
     "train: expected targets from 0 to 3, for the network has 4 outputs, found 1"),
    (((INPUTS, CLASSES), (INPUTS, CLASSES + 7)), Own, "test: expected targets from 0 to 3"),
    (((INPUTS, CLASSES - 1), TEST), Own, "found -1 to 2"),
    (((INPUTS, CLASSES), (INPUTS[:, :2], CLASSES)), Own, "the network, called with a tensor of shape (2, 2)"),
    ((Rows(cut), TEST), Own, "its length is said to be 30: is it shorter?"),
    ((Rows(failing(KeyError("x"))), TEST), Own, "Rows, sample 7: KeyError"),
    ((Rows(failing(SystemExit(3))), TEST), Own, "Rows, sample 7: SystemExit"),
    ((Rows(failing(asyncio.CancelledError())), TEST), Own, "Rows, sample 7: CancelledError"),  # no Exception
    ((Rows(lambda row: INPUTS[row]), TEST), Own, "expected a pair (input, target)"),
    ((Rows(lambda row: ("a text", row % 4)), TEST), Own, "found (str, int)"),
    ((Rows(lambda row: (INPUTS[row], "a")), TEST), Own, "the target of sample 0"),
    ((Rows(lambda row: (torch.ones(3 + row % 2), row % 4)), TEST), Own, "of equal shapes"),
    ((Rows(lambda row: (INPUTS[row], 7)), TEST), Own, "a batch: expected targets from 0 to 3"),
    ((Rows(lambda row: (INPUTS[row], row % 4), lambda: 1 // 0), TEST), Own, "its length: ZeroDivisionError"),
    ((Rows(lambda row: (INPUTS[row], row % 4), 0), TEST), Own, "the Rows is empty"),
    (((INPUTS.to_sparse(), CLASSES), TEST), Own, "expected dense tensors"),
    (((INPUTS.to("meta"), CLASSES), TEST), Own, "expected dense tensors"),
    (((INPUTS.to(torch.complex64), CLASSES), TEST), Own, "of real numbers"),
    (((np.array(["a", "b"]), np.array([0, 1])), TEST), Own, "expected arrays of numbers, found one of <U1"),
    (([1.0] * 100_000, TEST), Own, "(100,000 in all)"),
    ({"train": TEST}, Own, "expected the keys train, test"), (3, Own, "found int"),
    (((INPUTS, CLASSES[:3]), TEST), Own, "expected as many targets as inputs"),
    (((INPUTS, CLASSES), TEST), lambda: Own(lambda output: (output, 3)), "the network returned (a tensor of "
                                                                         "shape"),
    (((INPUTS, CLASSES), TEST), lambda: Own(lambda output: output.nothing), "no attribute 'nothing'"),
    (((INPUTS, CLASSES), TEST), lambda: Own(lambda output: sys.exit(0)), "SystemExit"),
    (((INPUTS, CLASSES), TEST), lambda: Own(cancelled), "CancelledError"),
    (((INPUTS, CLASSES), TEST), lambda: Own(lambda output: output[0]), "classification expects outputs"),
    (((INPUTS, CLASSES), TEST), lambda: 3, "expected a torch module"),
    (((torch.nested.nested_tensor([INPUTS[0], INPUTS[1, :2]], layout=torch.jagged), CLASSES[:2]), TEST), Own,
     "found a nested"),
    ((Rows(lambda row: (INPUTS[row], None)), TEST), Own, "expected a number, a class or an array of them"),
    ((Rows(failing(UnspokenError())), TEST), Own, "UnspokenError: its __str__ raises RuntimeError"),
    (((INPUTS, CLASSES), TEST), lambda: Own(lambda output: output.detach()), "the loss has no gradient"),
    (((INPUTS, CLASSES), TEST), InTraining, "not for evaluation"),
    (((INPUTS, CLASSES), TEST), Hollow, "call super().__init__() first"),
    (((INPUTS, CLASSES), TEST), lambda: nn.LazyLinear(4), "weight has no shape yet"),
    (((INPUTS, CLASSES), TEST), lambda: nn.Linear(3, 4, device="meta"), "weight is a meta tensor")])
def test_what_cannot_be_taken_is_one_line(data: Any, net: Callable[[], nn.Module], told: str,
                                          train: Callable[..., tuple[int, str]]) -> None:
    status, error = train(data, net)
    assert status == 2
    assert told in error
    assert error.count("\n") == 1
    assert len(error) < 700
    assert train(((INPUTS, CLASSES), TEST))[0] == 0, "nothing is in the way of the next start"


def test_many_things_are_named_in_few_words() -> None:
    assert kind_of([1.0] * 100_000) == "(float, float, float, float, ... (100,000 in all))"
    assert kind_of({"a": 1, "b": 2}) == "a dict of a, b"
