"""The Muon of the benchmark is torch's."""

import pytest
import torch
from torch import nn

from pontryagin.run.baselines import Muon, muon


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5)])
def test_steps_are_those_of_torch_up_to_its_rounding(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    own, other = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([own], lr=0.1)
    theirs = torch.optim.Muon([other], lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        own.grad = other.grad = torch.randn(shape, generator=generator)
        mine.step()
        theirs.step()
        assert (own - other).norm() < 0.03 * (own - start).norm()


def test_filters_are_matrices_and_the_rest_is_adamw() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 2))
    flat = nn.Parameter(model[0].weight.detach().flatten(1).clone())
    joint, alone = muon(model, 0.1), Muon([flat], 0.1)
    model(torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(1))).square().sum().backward()
    flat.grad = model[0].weight.grad.flatten(1)
    joint.step()
    alone.step()
    torch.testing.assert_close(model[0].weight.flatten(1), flat)
    assert len(joint.param_groups) == 2
    assert {id(weight)
            for weight in joint.param_groups[1]["params"]} == {id(model[0].weight), id(model[2].weight)}
