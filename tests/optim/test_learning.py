"""EMSA learns: fewer steps than Adam on digits."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from pontryagin.optim import EMSA


def steps_to(level: float, method: str, most: int) -> int:
    """Steps on batches of 64 until the loss over the training images is at the level."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = torch.tensor(data.images,
                        dtype=torch.float32).unsqueeze(1)[:512] / 16, torch.tensor(data.target)[:512]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
                          nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))
    optimizer = EMSA(model) if method == "EMSA" else torch.optim.Adam(model.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(most):
        batch = torch.randint(0, 512, (64,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        if step % 5 == 4:
            with torch.no_grad():
                if F.cross_entropy(model(x), y) < level:
                    return step + 1
    return most


def test_digits_in_fewer_steps_than_adam() -> None:
    mine = steps_to(0.1, "EMSA", 200)
    assert 2 * mine <= steps_to(0.1, "Adam", 2 * mine + 1)
