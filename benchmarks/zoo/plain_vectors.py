"""Sets, graphs, equations, coordinates and tables in plain torch."""

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from benchmarks.zoo.family import Batch, Family


def _squared(model: nn.Module, batch: Batch) -> Tensor:
    return functional.mse_loss(model(batch["x"]), batch["y"])


def _perceptron(inputs: int, outputs: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 64), activation(), nn.Linear(64, 64), activation(),
                         nn.Linear(64, outputs))


class DeepSet(nn.Module):
    """A sum over the elements, and what follows from it."""

    def __init__(self) -> None:
        super().__init__()
        self.element, self.whole = _perceptron(2, 32), _perceptron(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.whole(self.element(x).mean(1)).squeeze(1)


def _sets(generator: Generator) -> Batch:
    """Twelve points each, and the standard deviation of their first coordinate times the mean of the
    second."""
    scale = 0.5 + torch.rand(32, 1, 1, generator=generator)
    x = scale * torch.randn(32, 12, 2, generator=generator) + torch.tensor([0.0, 1.0])
    return {"x": x, "y": x[..., 0].std(1) * x[..., 1].mean(1)}


class GraphConvolution(nn.Module):
    """Neighbors' features, averaged and mapped; the bias is a parameter of its own, as in PyTorch
    Geometric."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.map, self.bias = nn.Linear(inputs, outputs, bias=False), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, neighbors: Tensor) -> Tensor:
        return neighbors @ self.map(x) + self.bias


class GraphNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GraphConvolution(16, 64), GraphConvolution(64, 4)

    def forward(self, x: Tensor, neighbors: Tensor) -> Tensor:
        return self.second(functional.relu(self.first(x, neighbors)), neighbors)


_MEANS = torch.randn(4, 16, generator=Generator().manual_seed(31))


def _graphs(generator: Generator) -> Batch:
    """Sixty-four nodes of four kinds: those of a kind are joined more often. Features are far noisier than
    different."""
    labels = torch.randint(4, (64,), generator=generator)
    rate = torch.where(labels.unsqueeze(0) == labels.unsqueeze(1), 0.4, 0.05)
    joined = (torch.rand(64, 64, generator=generator) < rate).float()
    joined = joined.maximum(joined.T).fill_diagonal_(1)
    x = _MEANS[labels] + 2 * torch.randn(64, 16, generator=generator)
    return {"x": x, "neighbors": joined / joined.sum(1, keepdim=True), "labels": labels}


def _nodes(model: nn.Module, batch: Batch) -> Tensor:
    return functional.cross_entropy(model(batch["x"], batch["neighbors"]), batch["labels"])


def _points(generator: Generator) -> Batch:
    """In the unit square, and on its rim."""
    rim = torch.rand(64, 2, generator=generator)
    rim[torch.arange(64), torch.arange(64) % 2] = (torch.arange(64) // 2 % 2).float()
    return {"inside": torch.rand(128, 2, generator=generator), "rim": rim}


def _poisson(model: nn.Module, batch: Batch) -> Tensor:
    """Of Delta u = -2 pi^2 sin(pi x) sin(pi y) with u = 0 on the rim: the mean squares of both, the first in
    units of pi^4."""
    x = batch["inside"].clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    laplacian = sum(torch.autograd.grad(slope[:, n].sum(), x, create_graph=True)[0][:, n] for n in range(2))
    right = 2 * torch.sin(math.pi * batch["inside"]).prod(1)
    return (laplacian / math.pi**2 + right).square().mean() + model(batch["rim"]).square().mean()


class Siren(nn.Module):
    """Coordinates to colors through sines, with the initialization of Sitzmann et al. (2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList([nn.Linear(2, 64), nn.Linear(64, 64),
                                                nn.Linear(64, 64)]), nn.Linear(64, 3)
        for n, layer in enumerate(self.layers):
            bound = 1 / 2 if n == 0 else (6 / 64) ** 0.5 / 10
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.sin(10 * layer(x))
        return self.head(x)


def _colors(generator: Generator) -> Batch:
    x = 2 * torch.rand(256, 2, generator=generator) - 1
    waves = torch.sin(x @ torch.tensor([[3.0, 7.0, -5.0], [5.0, -2.0, 6.0]]))
    return {"x": x, "y": waves}


class Recurring(nn.Module):
    """One block, six times: dx/dt = f(x)."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.head = nn.Linear(8, 32), nn.Linear(32, 1)
        self.block = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 32))

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        for _ in range(6):
            x = x + self.block(x) / 6
        return self.head(x).squeeze(1)


def _regression(generator: Generator) -> Batch:
    x = torch.randn(64, 8, generator=generator)
    return {"x": x,
            "y": torch.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.1 * torch.randn(64, generator=generator)}


class Recommender(nn.Module):
    """A bag of what a user has seen, an item, and a bilinear form between them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.items = nn.EmbeddingBag(100, 16), nn.Embedding(100, 16)
        self.match, self.head = nn.Bilinear(16, 16, 8), nn.Linear(8, 1)

    def forward(self, bags: Tensor, items: Tensor) -> Tensor:
        return self.head(functional.relu(self.match(self.seen(bags), self.items(items)))).squeeze(1)


def _tastes(generator: Generator) -> Batch:
    """Users see five items of one of ten kinds, and like more of it."""
    kinds = torch.randint(10, (64,), generator=generator)
    bags = kinds.unsqueeze(1) + 10 * torch.randint(10, (64, 5), generator=generator)
    items = torch.where(torch.rand(64, generator=generator) < 0.5, kinds,
                        torch.randint(10, (64,), generator=generator))
    return {"bags": bags, "items": items + 10 * torch.randint(10, (64,), generator=generator),
            "likes": (items == kinds).float()}


def _liking(model: nn.Module, batch: Batch) -> Tensor:
    return functional.binary_cross_entropy_with_logits(model(batch["bags"], batch["items"]), batch["likes"])


PLAIN_VECTORS = {
    "deep-set": Family(DeepSet, _sets, _squared),
    "graph-convolution": Family(GraphNet, _graphs, _nodes),
    "physics-informed": Family(lambda: nn.Sequential(_perceptron(2, 1, nn.Tanh), nn.Flatten(0)), _points,
                               _poisson),
    "siren": Family(Siren, _colors, _squared),
    "recurring-block": Family(Recurring, _regression, _squared),
    "recommender": Family(Recommender, _tastes, _liking),
}
