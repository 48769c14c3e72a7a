"""A step takes no weight further than weights allow, however small the inputs are."""

import pytest
import torch
from torch import nn

from pontryagin.optim import EMSA
from pontryagin.optim.fading import REACH, reach, within


def test_the_limit_is_a_part_of_the_weight_or_of_its_usual_size() -> None:
    norms = torch.tensor([0.0, 1.0, 10.0])
    assert torch.allclose(reach(norms, 4), REACH * torch.tensor([2.0, 2.0, 10.0]))
    assert torch.allclose(within(torch.tensor([0.0, 1.0, 8.0]), torch.tensor([1.0, 2.0, 2.0])),
                          torch.tensor([1.0, 1.0, 0.25]))


@pytest.mark.parametrize("rows", [5, 64], ids=["by rows", "polar"])
@pytest.mark.parametrize("size", [1e-12, 1e-4, 1e-2, 1.0])
def test_inputs_that_have_all_but_vanished(size: float, rows: int) -> None:
    """At size 1 the step is that of the outputs, which move by lr; below, the weights' own."""
    torch.manual_seed(0)
    model = nn.Linear(6, 8, bias=False)
    optimizer = EMSA(model, momentum=0.0)
    x, before = size * torch.randn(rows, 6), model.weight.detach().clone()
    (model(x) * torch.randn(rows, 8)).mean().backward()
    optimizer.step()
    moved = ((model.weight - before).norm() / max(before.norm().item(), 8**0.5)).item()
    assert moved <= REACH * (1 + 1e-5)
    assert (moved > 0.99 * REACH) == (size < 0.1)


def starved(depth: int) -> nn.Sequential:
    """Signals fall by a factor of some ten in every layer."""
    torch.manual_seed(1)
    layers = [part for _ in range(depth) for part in (nn.Linear(16, 16), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Linear(16, 3))
    with torch.no_grad():
        for layer in model[::2]:
            layer.weight.mul_(0.2)  # type: ignore[operator, union-attr]
            layer.bias.zero_()  # type: ignore[operator, union-attr]
    return model


@pytest.mark.parametrize("depth", [6, 14])
def test_a_network_that_its_initialization_starves_learns(depth: int) -> None:
    """In the mean over three data sets."""
    ends = []
    for seed in (2, 3, 4):
        model, x = starved(depth), torch.randn(64, 16, generator=torch.Generator().manual_seed(seed))
        y, optimizer, losses = x[:, :3].argmax(1), EMSA(model), []
        for _ in range(60):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            assert max(parameter.abs().max().item() for parameter in model.parameters()) < 100
        ends.append(min(losses) / losses[0])
    assert sum(ends) / 3 < 0.75
