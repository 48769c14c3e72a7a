"""Requests that an audit refuses, stages that it leaves out by name, and what its result says."""

import json

import pytest
import torch
from audit_builders import built, vectors
from torch import Tensor, nn

import pontryagin
from pontryagin.audit import audit, auditing
from pontryagin.audit.result import spearman
from pontryagin.audit.sets import STANDARD, RoundToNearest
from pontryagin.problem import ProblemError


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(x), x


@pytest.mark.parametrize(("change", "message"), [
    ({"loss": "hinge"}, "unknown loss 'hinge'"),
    ({"loss": lambda out, y: out}, "one number"),
    ({"loss": lambda out, y: 1.0}, "found float"),
    ({"batches": []}, "three batches or more"),
    ({"batches": [torch.zeros(3, 8)] * 3}, "batch 0: expected a pair"),
    ({"batches": [(vectors(4), torch.zeros(5))] * 3}, "as many targets"),
    ({"batches": [("text", torch.zeros(4))] * 3}, "expected inputs as a tensor"),
    ({"sets": ("int5",)}, "unknown admissible sets int5"),
    ({"memory": 10}, "memory"),
    ({"model": Pair().double()}, "one tensor"),
    ({"model": nn.Sequential(nn.Flatten())}, "affine stage"),
    ({"model": nn.Sequential(nn.LazyLinear(3))}, "lazy"),
    ({"model": "resnet"}, "torch module"),
])
def test_refused(change: dict[str, object], message: str) -> None:
    model, batches = built("mlp")
    with pytest.raises(ProblemError, match=message):
        audit(**{"model": model, "loss": "cross-entropy", "batches": batches,  # type: ignore[arg-type]
                 **change})


def test_targets_of_the_wrong_shape_are_refused() -> None:
    model, batches = built("mlp")
    with pytest.raises(ProblemError, match="cross-entropy: expected targets"):
        audit(model, "cross-entropy", [(x, y.unsqueeze(1)) for x, y in batches])
    with pytest.raises(ProblemError, match="squared-error: expected targets of shape"):
        audit(model, "squared-error", batches)


class Bypassed(nn.Module):
    """A weight used without its module, a bare parameter, and rows that are no multiple of four."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.scale = nn.Linear(8, 6), nn.Linear(6, 3), nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.first(x), self.second.weight) * self.scale


def test_what_cannot_be_audited_is_named() -> None:
    model = Bypassed().double()
    found = audit(model, "cross-entropy", built("mlp")[1])
    assert [stage.name for stage in found.stages] == ["first.weight"]
    assert "not called" in found.unseen["second.weight"]
    assert "no affine stage" in found.unseen["scale"]
    assert "not audited: scale" in str(found)


def test_sets_that_do_not_fit_are_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 3)).double()
    found = audit(model, "cross-entropy", built("mlp")[1])
    first, norm, last = found.stages
    assert [each.set for each in first.restrictions] == list(STANDARD)
    assert not norm.restrictions
    assert last.restriction("2:4") is None
    assert "multiple of 4" in last.omitted["2:4"]


def test_result() -> None:
    model, batches = built("convolutional")
    steps = list(auditing(model, pontryagin.CrossEntropy(), batches))
    found = steps[-1]
    assert len(steps) == 1 + len(found.stages)
    assert all(each.true is None for stage in steps[0].stages for each in stage.restrictions)
    ranks = found.ranking("int4")
    assert [each.rank for _, each in ranks] == list(range(1, len(ranks) + 1))
    assert [each.predicted for _, each in ranks] == sorted(each.predicted for _, each in ranks)
    assert found.agreement("int4") is not None
    assert steps[0].agreement("int4") is None
    back = json.loads(json.dumps(found.to_dict()))
    assert back["stages"][0]["restrictions"][0]["set"] == "int8"
    assert back["samples"] == sum(len(y) for _, y in batches)
    for stage in found.stages:
        assert stage.name in str(found)


def test_own_sets_and_progress() -> None:
    model, batches = built("mlp")
    told: list[tuple[str, int, int]] = []
    found = audit(model, "cross-entropy", batches, sets={"int2": RoundToNearest(2)},
                  progress=lambda *step: told.append(step))
    assert found.sets == ("int2",)
    assert list(dict.fromkeys(title for title, _, _ in told)) == ["gradients and Gram matrices",
                                                                  "predicted costs", "true costs"]
    assert all(any(done == length for title, done, length in told if title == each) for each, _, _ in told)


def test_named_inputs_and_several_inputs() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 3).double()

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.layer(a + b)

    torch.manual_seed(0)
    model, batches = Sum(), built("mlp")[1]
    one = audit(model, "cross-entropy", [((x, x), y) for x, y in batches])
    other = audit(model, "cross-entropy", [({"a": x, "b": x}, y) for x, y in batches])
    assert str(one) == str(other)


def test_rank_correlation() -> None:
    assert spearman([1.0, 2.0, 3.0], [10.0, 20.0, 15.0]) == pytest.approx(0.5)
    assert spearman([1.0, 1.0, 2.0], [3.0, 3.0, 7.0]) == pytest.approx(1.0)
    assert spearman([1.0, 1.0], [1.0, 2.0]) != spearman([1.0, 1.0], [1.0, 2.0])  # nan
