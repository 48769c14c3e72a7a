"""Small networks with discrete weights, and the optimizers over them."""

import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.problem.admissible import Binary, Codebook, DiscreteSet, Ternary
from pontryagin.run.baselines import BinaryConnect, Bop, LiHao, draw, split_parameters


def network(admissible: DiscreteSet, width: int = 16, dtype: torch.dtype = torch.float32,
            seed: int = 0) -> nn.Sequential:
    """A small net with normalizations and a convolution, its weights drawn from the set."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                          nn.Linear(64, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
                          nn.Linear(width, 3, bias=False), nn.BatchNorm1d(3)).to(dtype)
    with torch.no_grad():
        for weight in split_parameters(model)[0]:
            weight.copy_(draw(weight.shape, admissible))
    return model


def batch(seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Images whose class is where they are bright."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 3, (30,), generator=generator)
    images = 0.5 * torch.randn(30, 1, 6, 6, generator=generator)
    for row, place in enumerate(target.tolist()):
        images[row, 0, 2 * place:2 * place + 2] += 1.0
    return images.to(dtype), target


MAKERS: dict[str, tuple[DiscreteSet, Callable[[list[nn.Parameter]], Any]]] = {
    "LiHao binary": (Binary(), lambda weights: LiHao(weights, Binary(), renewal=0.1, period=5)),
    "LiHao ternary": (Ternary(), lambda weights: LiHao(weights, Ternary(), renewal=0.1, period=5, l1=1e-4)),
    "Bop": (Binary(), lambda weights: Bop(weights, lr=0.1, threshold=1e-3)),
    "BinaryConnect binary": (Binary(), lambda weights: BinaryConnect(weights, Binary(), lr=0.05)),
    "BinaryConnect ternary": (Ternary(), lambda weights: BinaryConnect(weights, Ternary(), lr=0.05)),
    "BinaryConnect ternary, rows": (Ternary(scale="row"),
                                    lambda weights: BinaryConnect(weights, Ternary(scale="row"), lr=0.05)),
    "BinaryConnect three bits": (Codebook(3), lambda weights: BinaryConnect(weights, Codebook(3), lr=0.05)),
}


def through_a_file(value: dict[str, Any]) -> dict[str, Any]:
    """Saved and loaded as a checkpoint."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)
