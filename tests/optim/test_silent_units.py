"""A unit that was silent for long does not jump when its gradient comes back."""

import pytest
import torch
from torch import nn

from pontryagin.optim import EMSA


def test_the_first_gradient_after_silence_moves_a_normalization_little() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(6))
    optimizer = EMSA(model)
    x, mask = torch.randn(32, 6), torch.ones(6)
    for step in range(303):
        mask[2] = float(step < 30 or step in (301, 302))
        before = model[0].bias.detach().clone()  # type: ignore[operator, union-attr]
        optimizer.zero_grad()
        (model(x) * (mask * torch.randn(32, 6))).mean().backward()
        optimizer.step()
    assert (model[0].bias - before).abs()[2] < 0.03 * 5  # type: ignore[operator]


def test_the_first_gradient_after_silence_moves_an_output_of_a_linear_layer_little() -> None:
    torch.manual_seed(0)
    model, x, mask = nn.Linear(6, 4), torch.randn(32, 6), torch.ones(4)
    optimizer = EMSA(model)
    for step in range(302):
        mask[2] = float(step < 30 or step == 301)
        with torch.no_grad():
            before = model(x)
        optimizer.zero_grad()
        (model(x) * mask * torch.randn(32, 4)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        moved = (model(x) - before).square().mean(0).sqrt()
    assert (moved < 0.03 * 5).all()


def test_long_after_the_loss_has_vanished_controls_stay_where_they_are() -> None:
    """Gradients come down to rounding errors and below; one that is larger again must not throw the network
    away."""
    torch.manual_seed(0)
    model = nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(8, 8), nn.ReLU())),
                          nn.Linear(8, 3))
    optimizer = EMSA(model)
    x = torch.randn(64, 8)
    y = (x[:, :3] * 3).argmax(1)
    for step in range(700):
        rows = torch.arange(step * 16, step * 16 + 16) % 64
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
    assert all(parameter.isfinite().all() and parameter.abs().max() < 20 for parameter in model.parameters())


@pytest.mark.parametrize("rows", [16, 64])
@pytest.mark.parametrize("leak", [0.0, 1e-6])
def test_outputs_that_fall_silent_stay_where_they_are(rows: int, leak: float) -> None:
    """Outputs that have been trained, and get no gradient from then on (or next to none), as the heads of
    other tasks: they do not move for those that they used to move with, by rows and with many rows."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 6))
    optimizer = EMSA(model)
    generator = torch.Generator().manual_seed(1)
    teacher = torch.randn(10, 6, generator=generator)

    def step(weights: torch.Tensor) -> None:
        x = torch.randn(rows, 10, generator=generator)
        target = (x @ teacher).tanh() + 0.3 * (x @ teacher[:, :1])
        optimizer.zero_grad()
        loss = ((model(x) - target).square() * weights).mean()
        loss.backward()
        optimizer.step(loss=loss)

    for _ in range(200):
        step(torch.ones(6))
    hidden = model[:2](torch.randn(300, 10, generator=generator)).detach()
    before = model[2](hidden).detach()
    for _ in range(200):
        step(torch.tensor([1.0, 1, 1, leak, leak, leak]))
    moved = (model[2](hidden).detach() - before).square().mean(0).sqrt() / before.square().mean(0).sqrt()
    assert moved[3:].max() < 0.1
    assert moved[:3].min() > 1e-3
