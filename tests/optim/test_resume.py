"""Training goes on from a checkpoint bitwise as if it had not been interrupted."""

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from optim_builders import Attention, emsa, images, mlp, net, parameters, train, vectors
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import lr_scheduler

from pontryagin.optim import EMSA, fading

Batch = Callable[..., tuple[Tensor, Tensor]]


def tokens(seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 11, (6, 5), generator=generator), torch.randint(0, 3, (6,), generator=generator)


def attention(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return Attention().to(dtype)


MODELS: dict[str, tuple[Callable[[torch.dtype], nn.Module], Batch, dict[str, Any]]] = {
    "convolutions": (net, images, {}),
    "subspace": (net, images, {"metric_rank": 2, "moment_rows": 16}),
    "transformer": (attention, tokens, {}),
    "polar steps": (mlp, lambda seed, dtype: vectors(30, dtype, seed), {"weight_decay": 0.1}),
}


def through_a_file(value: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.filterwarnings("ignore:EMSA trains")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_exact_resume(name: str, dtype: torch.dtype) -> None:
    make, batch, options = MODELS[name]
    whole, before, after = make(dtype), make(dtype), make(dtype)
    one = emsa(whole, refresh_budget=0.5, **options)
    expected = train(whole, one, 16, batch, dtype=dtype)
    first = emsa(before, refresh_budget=0.5, **options)
    losses = train(before, first, 7, batch, dtype=dtype)
    saved = through_a_file({"model": before.state_dict(), "optimizer": first.state_dict()})
    after.load_state_dict(saved["model"])
    second = emsa(after, refresh_budget=0.5, **options)
    second.load_state_dict(saved["optimizer"])
    losses += train(after, second, 9, batch, first=7, dtype=dtype)
    assert losses == expected
    assert torch.equal(parameters(after), parameters(whole))
    for a, b in zip(whole.parameters(), after.parameters(), strict=True):
        assert one.state[a].keys() == second.state[b].keys()
        for key, value in one.state[a].items():
            assert torch.equal(value, second.state[b][key]), key
            assert value.dtype in (torch.bool, torch.float32 if dtype == torch.bfloat16 else dtype,
                                   torch.float32, torch.float64)
    assert [{**group, "params": 0} for group in one.param_groups] == [{**group, "params": 0}
                                                                      for group in second.param_groups]


def test_resume_with_a_scheduler_and_groups() -> None:
    def build() -> tuple[nn.Module, EMSA, lr_scheduler.LRScheduler]:
        model = mlp()
        optimizer = EMSA(model,
                         [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters()}])
        return model, optimizer, lr_scheduler.StepLR(optimizer, 2, 0.5)

    def run(model: nn.Module, optimizer: EMSA, scheduler: lr_scheduler.LRScheduler, first: int,
            last: int) -> None:
        for step in range(first, last):
            train(model, optimizer, 1, vectors, first=step)
            scheduler.step()

    whole, half, rest = build(), build(), build()
    run(*whole, 0, 8)
    run(*half, 0, 3)
    for target, source in zip(rest, half, strict=True):
        target.load_state_dict(through_a_file(source.state_dict()))
    run(*rest, 3, 8)
    assert torch.equal(parameters(rest[0]), parameters(whole[0]))


def test_resume_with_a_frozen_and_an_unused_layer() -> None:
    def build() -> nn.Module:
        model = net()
        model.unused = nn.Linear(2, 2).double()
        model.features[0].requires_grad_(False)
        return model

    whole, half, rest = build(), build(), build()
    train(whole, EMSA(whole), 6, images)
    optimizer = EMSA(half)
    train(half, optimizer, 3, images)
    rest.load_state_dict(half.state_dict())
    resumed = EMSA(rest)
    resumed.load_state_dict(optimizer.state_dict())
    train(rest, resumed, 3, images, first=3)
    assert torch.equal(parameters(rest), parameters(whole))


def test_loading_does_not_share_tensors() -> None:
    model, other = mlp(), mlp()
    optimizer, second = EMSA(model), EMSA(other)
    train(model, optimizer, 2, vectors)
    second.load_state_dict(optimizer.state_dict())
    kept = optimizer.state[model[0].weight]["moment"].clone()
    train(other, second, 2, vectors)
    assert torch.equal(optimizer.state[model[0].weight]["moment"], kept)


@pytest.mark.parametrize("in_place", [False, True])
def test_distributed_checkpoint_state_dicts(in_place: bool) -> None:
    """Their functions make an empty optimizer step with zero gradients, and fill its tensors, in place or as
    a whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, half, rest = net(torch.float32), net(torch.float32), net(torch.float32)
        train(whole, EMSA(whole), 8, images, dtype=torch.float32)
        optimizer = EMSA(half)
        train(half, optimizer, 5, images, dtype=torch.float32)
        weights, state = get_model_state_dict(half), get_optimizer_state_dict(half, optimizer)
        resumed = EMSA(rest)
        before = parameters(rest).clone()
        empty = get_optimizer_state_dict(rest, resumed)
        assert torch.equal(parameters(rest), before)
        if in_place:
            for name, entries in state["state"].items():
                target = empty["state"][name]
                assert target.keys() == entries.keys()
                for key, value in entries.items():
                    assert (target[key].shape, target[key].dtype) == (value.shape, value.dtype), (name, key)
                    target[key].copy_(value)
            state = {"state": empty["state"], "param_groups": state["param_groups"]}
        set_model_state_dict(rest, weights)
        set_optimizer_state_dict(rest, resumed, state)
        train(rest, resumed, 3, images, first=5, dtype=torch.float32)
    assert torch.equal(parameters(rest), parameters(whole))


@pytest.mark.parametrize("rows", [5, 64], ids=["by rows", "polar"])
@pytest.mark.parametrize("steps", [29, 30, 31])
def test_the_reach_of_a_step_goes_on_between_two_measurements(steps: int, rows: int,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are measured in every fourth step, and these inputs are so small that what they allow binds."""
    def go(model: nn.Module, optimizer: EMSA, first: int, last: int) -> None:
        for step in range(first, last):
            x = torch.randn(rows, 6, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            (model(1e-12 * x) - x[:, :2].sin()).square().mean().backward()
            optimizer.step()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 2, bias=False))
    other, optimizer = copy.deepcopy(model), EMSA(model, averaging=None)
    go(model, optimizer, 0, steps)
    other.load_state_dict(model.state_dict())
    later = EMSA(other, averaging=None)
    later.load_state_dict(optimizer.state_dict())
    free = copy.deepcopy((model, optimizer))
    go(model, optimizer, steps, steps + 6)
    go(other, later, steps, steps + 6)
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    monkeypatch.setattr(fading, "REACH", 1e30)
    go(*free, steps, steps + 6)
    assert (free[0][0].weight - model[0].weight).norm() > 0.5 * model[0].weight.norm()
