"""A convolution on a graph: which of eight communities a node belongs to."""

from functools import cache

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from pontryagin.bench.panel.network import Network, Work
from pontryagin.run.objective import OBJECTIVES
from pontryagin.run.trainer import Batch

NODES, KINDS, FEATURES = 1500, 8, 32


@cache
def graph() -> tuple[Tensor, Tensor, Tensor]:
    """Features (node, feature), far noisier than different; neighbors (node, node), sparse, D^-1/2 (A + 1)
    D^-1/2 as in Kipf and Welling (2017), about nine in ten joined to another community; communities
    (node,)."""
    generator = Generator().manual_seed(7)
    kinds = torch.randint(KINDS, (NODES,), generator=generator)
    rate = torch.where(kinds[:, None] == kinds, 0.04, 0.006)
    joined = (torch.rand(NODES, NODES, generator=generator) < rate).float().triu(1)
    joined = joined + joined.T + torch.eye(NODES)
    scale = joined.sum(1).rsqrt()
    means = torch.randn(KINDS, FEATURES, generator=generator)
    features = means[kinds] + 3 * torch.randn(NODES, FEATURES, generator=generator)
    return features, (scale[:, None] * joined * scale).to_sparse().coalesce(), kinds


class GraphConvolution(nn.Module):
    """The mapped features of the neighbors, added up; the bias is a parameter of its own, as in PyTorch
    Geometric."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.map, self.bias = nn.Linear(inputs, outputs, bias=False), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sparse.mm(graph()[1], self.map(x)) + self.bias


class GraphNet(nn.Module):
    """Two convolutions; in come indices of nodes, out scores of their communities."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.first, self.second = GraphConvolution(FEATURES, width), GraphConvolution(width, KINDS)

    def forward(self, nodes: Tensor) -> Tensor:
        return self.second(functional.relu(self.first(graph()[0])))[nodes]


def _nodes(generator: Generator, number: int) -> Batch:
    nodes = torch.randint(NODES, (number,), generator=generator)
    return nodes, graph()[2][nodes]


GRAPHS = (Network("graph-convolution", "GCN", lambda _: Work(
    GraphNet, _nodes, 500, OBJECTIVES["cross-entropy"], 1500)),)
