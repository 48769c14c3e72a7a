"""A unit that was silent for long does not jump when its gradient comes back."""

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
