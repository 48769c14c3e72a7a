"""A track ends where something but known functions of z alone begins, and its steps repeat what the network
did."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pontryagin.audit.activation import Follower


def in_place_later(z: Tensor) -> Tensor:
    h = F.softplus(z)
    h.add_(1)
    return h


@pytest.mark.parametrize(("network", "steps"), [
    (nn.Sequential(nn.MaxPool2d(2), nn.Tanh(), nn.Conv2d(3, 2, 1)), 2),
    (nn.ReLU(inplace=True), 1),
    (nn.Sequential(nn.BatchNorm2d(3).eval(), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1)), 2),
    (nn.BatchNorm2d(3), 0),
    (lambda z: F.leaky_relu(z, 0.3).flatten(1), 1),
    (lambda z: F.gelu(z) * 2, 1),
    (lambda z: z * torch.sigmoid(z), 0),
    (lambda z: torch.relu(z) + z, 0),
    (lambda z: torch.relu(z).add(1).mul(2), 1),
    (lambda z: torch.cat([z, torch.relu(z)]), 0),
    (lambda z: z.relu_().tanh(), 2),
    (in_place_later, 0),
    (lambda z: (z.shape, z.detach(), z.tanh())[2], 1),
])
def test_tracks(network: Callable[[Tensor], Tensor], steps: int) -> None:
    start = torch.randn(2, 3, 4, 4, requires_grad=True)
    follower = Follower()
    with follower:
        z = start * 1.0
        track = follower.follow(z, given := z.clone())
        output = network(given)
    end, found = track.end()
    assert len(found) == steps
    again = z.detach()
    for step in found:
        again = step(again.clone())
    assert torch.equal(again, end)
    costate, direct = torch.autograd.grad(output.square().sum(), [end, start])
    with torch.enable_grad():
        repeated = start.clone()
        for step in found:
            repeated = step(repeated)
    torch.testing.assert_close(torch.autograd.grad((repeated * costate).sum(), start)[0], direct)
