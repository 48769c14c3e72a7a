"""A small network for each kind of step that EMSA takes, with batches for it that are numbered."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from optim_builders import emsa
from torch import Tensor, nn

from pontryagin.optim import EMSA
from pontryagin.problem import Binary, Codebook, MatrixSet, Ternary


@dataclass(frozen=True)
class Kind:
    """make: the network. shape: of its inputs; tokens: how many, if they are indices. options: of EMSA."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    tokens: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def model(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return self.make().to(dtype)

    def optimizer(self, model: nn.Module, **options: Any) -> EMSA:
        return emsa(model, **{**self.options, **options})

    def inputs(self, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        if self.tokens:
            return torch.randint(0, self.tokens, self.shape, generator=generator)
        return torch.randn(self.shape, generator=generator, dtype=torch.float64).to(dtype)

    def strange(self, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Inputs unlike those of the batches: whoever lets them into its moments takes other steps."""
        x = self.inputs(1000 + seed, dtype)
        return torch.full_like(x, 1) if self.tokens else 50 + 20 * x


def few(values: Iterable[Any], *fast: Any) -> list[Any]:
    """Values of a test's parameter; all but the fast ones for the slow tests."""
    return [value if value in fast else pytest.param(value, marks=pytest.mark.slow) for value in values]


def deviation(output: Tensor, seed: int) -> Tensor:
    """Mean squared distance from targets that belong to the batch."""
    target = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed + 500),
                         dtype=torch.float64)
    return (output - target.to(output.dtype)).square().mean()


def loss_of(model: nn.Module, x: Tensor, seed: int) -> Tensor:
    return deviation(model(x), seed)


def controls(model: nn.Module) -> Tensor:
    """All parameters as one vector of float64; buffers are none of the optimizer's."""
    return torch.cat([torch.view_as_real(each).flatten().double() if each.is_complex()
                      else each.flatten().double()
                      for each in (parameter.detach() for parameter in model.parameters())])


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Bit by bit."""
    assert torch.equal(found, expected), f"they differ by {(found - expected).abs().max().item():.3g}"


def assert_near(found: Tensor, expected: Tensor, start: Tensor, tolerance: float) -> None:
    """Changes from the start that are equal within a tolerance relative to the largest of them."""
    assert found.isfinite().all()
    scale = (expected - start).abs().max().item()
    assert scale > 0, "the reference does not move"
    difference = (found - expected).abs().max().item()
    assert difference <= tolerance * scale, f"they differ by {difference:.3g}, of {scale:.3g}"


class Words(nn.Module):
    """Tokens, their mean, a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(7, 5), nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.table(tokens).mean(1))


class SelfAttention(nn.Module):
    """The joint map to queries, keys and values alone is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.attention.out_proj.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Outside(nn.Module):
    """A parameter outside any stage, beside a stage."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(6, 4), nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.linear(x)


class Bare(nn.Module):
    """Nothing that is a stage."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.shift = nn.Parameter(torch.randn(4, 6) / 2), nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix.mT + self.shift


STAGES = {
    "rows": Kind(lambda: nn.Linear(6, 8), (10, 6)),
    "rows, no bias": Kind(lambda: nn.Linear(6, 8, bias=False), (10, 6)),
    "rows, exponent 1": Kind(lambda: nn.Linear(6, 8), (10, 6), options={"exponent": 1.0}),
    "rows, decay": Kind(lambda: nn.Linear(6, 8), (10, 6), options={"weight_decay": 0.3}),
    "many rows": Kind(lambda: nn.Linear(6, 4), (32, 6)),
    "many rows, no bias": Kind(lambda: nn.Linear(6, 4, bias=False), (32, 6)),
    "many rows, exponent 1": Kind(lambda: nn.Linear(6, 4), (32, 6), options={"exponent": 1.0}),
    "many rows, decay": Kind(lambda: nn.Linear(6, 4), (32, 6), options={"weight_decay": 0.3}),
    "subspace": Kind(lambda: nn.Linear(72, 6), (24, 72)),
    "subspace, no bias": Kind(lambda: nn.Linear(72, 6, bias=False), (24, 72), options={"exponent": 1.0}),
    "subspace, many rows": Kind(lambda: nn.Linear(66, 4), (140, 66)),
    "convolution": Kind(lambda: nn.Conv2d(2, 4, 3), (4, 2, 6, 6)),
    "convolution, no bias": Kind(lambda: nn.Conv1d(3, 4, 3, bias=False), (6, 3, 8)),
    "grouped": Kind(lambda: nn.Conv2d(4, 6, 3, groups=2), (4, 4, 6, 6)),
    "depthwise": Kind(lambda: nn.Conv2d(4, 4, 3, groups=4), (4, 4, 6, 6)),
    "transposed": Kind(lambda: nn.ConvTranspose2d(3, 4, 3, stride=2), (4, 3, 4, 4)),
    "layer norm": Kind(lambda: nn.LayerNorm(6), (10, 6)),
    "batch norm": Kind(lambda: nn.BatchNorm1d(6), (10, 6)),
    "group norm": Kind(lambda: nn.GroupNorm(2, 6), (8, 6, 5)),
    "RMS norm": Kind(lambda: nn.RMSNorm(6), (10, 6)),
    "embedding": Kind(lambda: nn.Embedding(7, 5), (12,), 7),
    "one number": Kind(lambda: nn.Linear(1, 1), (10, 1)),
    "attention": Kind(SelfAttention, (4, 5, 8)),
}
"""One stage each."""
def _discrete(theta: MatrixSet, **options: Any) -> Kind:
    return Kind(lambda: nn.Linear(6, 8, bias=False), (20, 6),
                options={"admissible": theta, "flip_rate": 1.0, "lr": 0.1, **options})


DISCRETE = {
    "binary": _discrete(Binary()), "binary by rows": _discrete(Binary("row")),
    "ternary": _discrete(Ternary("row")),
    "codebook": _discrete(Codebook(4)),
    "discrete convolution": Kind(lambda: nn.Conv2d(2, 4, 3, bias=False), (4, 2, 6, 6),
                                 options={"admissible": Ternary(), "flip_rate": 1.0, "lr": 0.1}),
}
"""One stage each, with weights in a discrete set; biases there are AdamW's."""
PRICED = {"priced": _discrete(Ternary("row"), density=0.3)}
NETS = {
    "rows": Kind(lambda: nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)), (10, 6)),
    "many rows": Kind(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), (32, 6)),
    "subspace": Kind(lambda: nn.Sequential(nn.Linear(72, 12), nn.Tanh(), nn.Linear(12, 3)), (24, 72)),
    "convolutions": Kind(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3, groups=4),
                                               nn.Flatten(), nn.Linear(16, 3)), (8, 2, 6, 6),
                         options={"moment_rows": None}),
    "norms": Kind(lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 8),
                                        nn.RMSNorm(8), nn.Linear(8, 3)), (10, 6)),
    "tokens": Kind(Words, (12, 4), 7),
    "binary": Kind(lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)),
                   (20, 6), options={"admissible": Binary(), "flip_rate": 1.0, "lr": 0.1}),
}
"""Several stages each."""
