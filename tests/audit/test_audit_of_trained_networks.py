"""On networks trained elsewhere the predicted ranking is the true one, and the gap falls along a training
run."""

import pytest
import torch
from torch import Tensor, nn

from pontryagin.audit import audit
from pontryagin.run.data import load_images
from pontryagin.run.models import mlp, residual_cnn


def trained(model: nn.Module, x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    """By torch alone."""
    optimizer, order = torch.optim.Adam(model.parameters(), lr=1e-3), torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model


def pairs(x: Tensor, y: Tensor, samples: int = 512) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x[:samples].split(64), y[:samples].split(64), strict=True))


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_ranking_of_ten_stages_and_falling_gap(name: str) -> None:
    data = load_images("digits")
    model = mlp((1, 8, 8), 10, width=48, depth=9) if name == "mlp" else residual_cnn((1, 8, 8), channels=8)
    held = pairs(data.train, data.train_labels)
    before = audit(model, "cross-entropy", held, sets=(), measure=False)
    trained(model, data.train, data.train_labels, 15)
    after = audit(model, "cross-entropy", held, sets=("int4", "ternary-rows"))
    assert len(after.stages) == 10
    assert (after.agreement("int4") or 0) >= 0.8
    assert (after.agreement("ternary-rows") or 0) >= 0.8
    assert after.gain < 0.1 * before.gain
