"""Small networks of many kinds, batches, and the audit's quantities the slow and obvious way, for tests of
the audit."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.func import functional_call

Pairs = list[tuple[Tensor, Tensor]]


class Reused(nn.Module):
    """A layer in three places, and a table of positions that knows nothing of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(9, 6), nn.Embedding(4, 6)
        self.step, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        for _ in range(3):
            x = x + torch.tanh(self.step(x))
        return self.head(x.mean(1))


class UsedTwice(nn.Module):
    """A layer's weight works outside of its module too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        return self.head(torch.tanh(F.linear(torch.tanh(self.second(x)), self.second.weight)))


class SequenceFirst(nn.Module):
    """A transformer layer whose states have samples along the second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(9, 8), nn.TransformerEncoderLayer(8, 2, 12, dropout=0.3)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layer(self.table(tokens.mT)).mean(0))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(12, 12),
                         nn.Tanh(), nn.Linear(12, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        nn.Conv2d(8, 4, 3, stride=2, groups=2, bias=False), nn.GroupNorm(2, 4),
        nn.ReLU(inplace=True), nn.ConvTranspose2d(4, 4, 3, 2, 1), nn.Flatten(), nn.LayerNorm(100),
        nn.Linear(100, 3))


def vectors(samples: int) -> Tensor:
    return torch.randn(samples, 8, dtype=torch.float64)


def images(samples: int) -> Tensor:
    return torch.randn(samples, 1, 7, 7, dtype=torch.float64)


def tokens(samples: int) -> Tensor:
    return torch.randint(0, 9, (samples, 4))


KINDS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "mlp": (mlp, vectors), "convolutional": (convolutional, images), "reused": (Reused, tokens),
    "sequence first": (SequenceFirst, tokens), "used twice": (UsedTwice, vectors)}


def built(kind: str, batches: int = 4, samples: int = 6) -> tuple[nn.Module, Pairs]:
    """A model in float64 with weights of every parameter in general position, and batches of different
    sizes."""
    make, inputs = KINDS[kind]
    torch.manual_seed(3)
    model = make().double()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model, [(inputs(samples + n % 2), torch.randint(0, 3, (samples + n % 2,))) for n in range(batches)]


def output_change(model: nn.Module, name: str, change: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and their derivative along a change of one parameter, by forward differentiation."""
    held = {key: value.detach() for key, value in model.named_parameters()}

    def outputs(weight: Tensor) -> Tensor:
        return functional_call(model, {**held, name: weight}, (inputs,))

    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        return torch.func.jvp(outputs, (held[name],), (change,))


def mean_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)
