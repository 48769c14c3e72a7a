"""An audit leaves the model, its hooks, its optimizer and the random numbers exactly as they were, also when
it fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import pytest
import torch
from audit_builders import Pairs, built
from torch import Tensor, nn

from pontryagin.audit import audit, auditing
from pontryagin.optim import EMSA
from pontryagin.problem import NonFiniteError, ProblemError


def snapshot(model: nn.Module) -> dict[str, object]:
    return {
        "tensors": {name: (value.data_ptr(), value.clone(), value._version)
                    for name, value in model.state_dict().items()},
        "gradients": {name: None if p.grad is None else (p.grad.data_ptr(), p.grad.clone())
                      for name, p in model.named_parameters()},
        "parameters": {name: (id(p), p.requires_grad) for name, p in model.named_parameters()},
        "flags": {name: module.training for name, module in model.named_modules()},
        "hooks": {name: (list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks))
                  for name, m in model.named_modules()},
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "random": torch.get_rng_state(),
    }


def same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    before = snapshot(model)
    yield
    after = snapshot(model)
    for part in before:
        assert same(before[part], after[part]), part


def trained(kind: str) -> tuple[nn.Module, Pairs]:
    """In the middle of its training: gradients there, one layer frozen, flags mixed."""
    model, batches = built(kind)
    nn.functional.cross_entropy(model(batches[0][0]), batches[0][1]).backward()
    last = list(model.parameters())[-1]
    last.requires_grad_(False)
    last.grad = None
    list(model.modules())[1].eval()
    return model, batches


@pytest.mark.parametrize("kind", ["mlp", "convolutional", "reused", "sequence first"])
def test_nothing_changes(kind: str) -> None:
    model, batches = trained(kind)
    with unchanged(model):
        first = audit(model, "cross-entropy", batches, sets=("int4", "50%"))
    assert str(audit(model, "cross-entropy", batches, sets=("int4", "50%"))) == str(first)


def test_nothing_changes_when_it_fails_or_stops() -> None:
    model, batches = trained("convolutional")

    def bad(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.sum() / 0

    with unchanged(model):
        with pytest.raises(NonFiniteError, match="batch 0"):
            audit(model, bad, batches)
        with pytest.raises(ProblemError, match="two samples"):
            audit(model, "cross-entropy", batches[:1])
        steps = auditing(model, "cross-entropy", batches)
        next(steps)
        steps.close()


def test_the_moments_of_an_optimizer_do_not_take_in_the_audit() -> None:
    model, batches = built("mlp")
    other = deepcopy(model)
    optimizer, beside = EMSA(model), EMSA(other)
    audit(model, "cross-entropy", batches)
    for one, its in ((model, optimizer), (other, beside)):
        x, y = batches[0]
        torch.manual_seed(0)  # dropout
        nn.functional.cross_entropy(one(x), y).backward()
        its.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(optimizer.state[a]["mean"], beside.state[b]["mean"])
               for a, b in zip(model.parameters(), other.parameters(), strict=True) if a.ndim > 1)


def test_all_frozen() -> None:
    model, batches = built("mlp")
    expected = audit(model, "cross-entropy", batches)
    model.requires_grad_(False)
    with torch.no_grad(), unchanged(model):
        assert str(audit(model, "cross-entropy", batches)) == str(expected)
