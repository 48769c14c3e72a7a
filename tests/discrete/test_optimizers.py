"""The optimizers over discrete weights: one contract for all, and each against its slow form."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from discrete_builders import MAKERS, batch, network, through_a_file
from torch import Tensor, nn

from pontryagin.problem import NonFiniteError, ProblemError
from pontryagin.problem.admissible import Binary, Box, Codebook, Ternary
from pontryagin.run.baselines import BinaryConnect, Bop, LiHao, draw, inside, split_parameters


def made(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[nn.Sequential, list[Any]]:
    admissible, make = MAKERS[name]
    model = network(admissible, dtype=dtype, seed=seed)
    weights, rest = split_parameters(model)
    return model, [make(weights), torch.optim.Adam(rest, 1e-2)]


def trained(model: nn.Module, optimizers: list[Any], steps: range,
            dtype: torch.dtype = torch.float32) -> list[float]:
    losses = []
    for number in steps:
        inputs, targets = batch(number, dtype)
        loss = F.cross_entropy(model(inputs), targets)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", MAKERS)
def test_weights_never_leave_the_set_and_the_loss_falls(name: str) -> None:
    admissible, _ = MAKERS[name]
    model, optimizers = made(name)
    start, losses = [weight.clone() for weight in split_parameters(model)[0]], []
    for number in range(60):
        losses += trained(model, optimizers, range(number, number + 1))
        assert all(inside(weight, admissible) for weight in split_parameters(model)[0])
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
    assert any(not torch.equal(one, other)
               for one, other in zip(start, split_parameters(model)[0], strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MAKERS)
def test_resume_is_bitwise(name: str, dtype: torch.dtype) -> None:
    whole, optimizers = made(name, dtype)
    expected = trained(whole, optimizers, range(14), dtype)
    first, before = made(name, dtype)
    losses = trained(first, before, range(6), dtype)
    saved = through_a_file({"model": first.state_dict(), "parts": [one.state_dict() for one in before]})
    second, after = made(name, dtype, seed=1)
    second.load_state_dict(saved["model"])
    for optimizer, state in zip(after, saved["parts"], strict=True):
        optimizer.load_state_dict(state)
    assert losses + trained(second, after, range(6, 14), dtype) == expected
    assert all(torch.equal(one, other)
               for one, other in zip(whole.state_dict().values(), second.state_dict().values(),
                                                             strict=True))


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_changes_when_a_gradient_is_not_finite(name: str) -> None:
    model, optimizers = made(name)
    trained(model, optimizers, range(2))
    F.cross_entropy(model(batch(2)[0]), batch(2)[1]).backward()
    weights = split_parameters(model)[0]
    weights[-1].grad[0, 0] = float("nan")
    weights_before, state = [weight.clone() for weight in weights], copy.deepcopy(optimizers[0].state_dict())
    with pytest.raises(NonFiniteError, match="nothing has been changed"):
        optimizers[0].step()
    assert all(torch.equal(one, other) for one, other in zip(weights_before, weights, strict=True))
    assert str(optimizers[0].state_dict()) == str(state)


@pytest.mark.parametrize("name", MAKERS)
def test_closure(name: str) -> None:
    model, (optimizer, _) = made(name)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch(0)[0]), batch(0)[1])
        loss.backward()
        return loss

    assert optimizer.step(closure).item() > 0


def test_li_hao_is_its_formula() -> None:
    """Renewal falls once a period; sign(m) beyond rho times the largest disagreement."""
    weight = nn.Parameter(draw((4, 5), Binary(), torch.Generator().manual_seed(0)).double())
    optimizer = LiHao([weight], Binary(), rho=0.4, renewal=0.2, decay=0.5, period=2)
    generator, w = torch.Generator().manual_seed(1), weight.detach().clone()
    m = torch.zeros_like(w)
    for number in range(7):
        gradient = torch.randn(4, 5, generator=generator, dtype=torch.float64)
        a = 1 - 0.2 * 0.5 ** (number // 2)
        m = a * m - (1 - a) * gradient
        wrong = m.abs()[w != m.sign()]
        if len(wrong):
            w = torch.where(m.abs() > 0.4 * wrong.max(), m.sign(), w)
        weight.grad = gradient
        optimizer.step()
        assert torch.equal(weight, w)


def test_binary_connect_is_adam_on_latent_weights() -> None:
    start = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight, latent = nn.Parameter(start.clone()), nn.Parameter(start.clamp(-1, 1))
    ours, adam = BinaryConnect([weight], Binary(), lr=0.3), torch.optim.Adam([latent], 0.3)
    for number in range(8):
        assert torch.equal(weight, torch.where(latent < 0, -1.0, 1.0).double())
        gradient = torch.randn(3, 6, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        weight.grad, latent.grad = gradient, gradient.clone()
        ours.step()
        adam.step()
        latent.data.clamp_(-1, 1)


@pytest.mark.parametrize(("make", "message"), [
    (lambda w: LiHao([w], Box(-1, 1)), "knows the sets"),
    (lambda w: LiHao([w], Binary(scale="row")), "with scale 1"),
    (lambda w: LiHao([w], Binary(), rho=-1), "rho >= 0"),
    (lambda w: LiHao([w], Binary(), period=0), "period >= 1"),
    (lambda w: LiHao([w], Ternary(), renewal=0), "renewal"),
    (lambda w: LiHao([w * 0.5], Binary()), "lies outside"),
    (lambda w: LiHao([w[0]], Binary()), "two axes"),
    (lambda w: LiHao([], Binary()), "found none"),
    (lambda w: Bop([w * 0.5]), "lies outside"),
    (lambda w: Bop([w], threshold=-1), "threshold >= 0"),
    (lambda w: BinaryConnect([w], Box(-1, 1)), "discrete set"),
    (lambda w: BinaryConnect([w], Binary(), betas=(0.9, 1.0)), "betas"),
    (lambda w: BinaryConnect([w[0]], Binary()), "two axes"),
    (lambda w: draw((2, 2), Box(-1, 1)), "discrete set"),
])
def test_wrong_requests_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        make(nn.Parameter(draw((2, 3), Binary())).detach())


def test_drawn_weights_use_every_code() -> None:
    for admissible in (Binary(), Ternary(scale=0.5), Codebook(3)):
        weight = draw((20, 20), admissible, torch.Generator().manual_seed(0))
        assert inside(weight, admissible)
        assert len(weight.unique()) == len(admissible.grid.codes)


@pytest.mark.parametrize("admissible",
                         [Binary(), Ternary(), Binary(scale=0.3), Ternary(scale=0.3), Binary(scale="row")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inside_is_contains(admissible: Any, dtype: torch.dtype) -> None:
    weight = admissible.project(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).to(dtype))
    for change in (0.0, 1e-6, float("nan"), float("inf"), 1.0):
        changed = weight.clone()
        changed[1, 2] += change
        assert inside(changed, admissible) == bool(admissible.contains(changed))
