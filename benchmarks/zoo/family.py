"""A family of models: how one is made, what it is trained on, and how an iteration goes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor, nn

from pontryagin.optim import EMSA

Batch = dict[str, Tensor]
Build = Callable[[], nn.Module]
Optimizers = Sequence[torch.optim.Optimizer]


def own_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The loss that a model of transformers computes by itself."""
    return model(**batch).loss


def descend(family: "Family", model: nn.Module, batch: Batch, optimizers: Optimizers) -> float:
    """One iteration with the loss of the family; its value before the step."""
    (optimizer,) = optimizers
    optimizer.zero_grad()
    loss = family.loss(model, batch)
    loss.backward()
    optimizer.step(**({"loss": loss} if isinstance(optimizer, EMSA) else {}))
    return loss.item()


def of_another_batch(family: "Family", model: nn.Module) -> float:
    """The loss of a batch that no training sees."""
    return family.loss(model, family.draw(torch.Generator().manual_seed(987654321))).item()


@dataclass(frozen=True)
class Family:
    """build: a fresh model, random by torch's seed. draw: a batch, random by the generator alone. loss: what
    is minimized, or at least reported. parts: the modules that have an optimizer each. iterate: one
    iteration, which returns the loss. held_out: the loss of a trained model on other samples."""

    build: Build
    draw: Callable[[torch.Generator], Batch]
    loss: Callable[[nn.Module, Batch], Tensor] = own_loss
    parts: Callable[[nn.Module], list[nn.Module]] = lambda model: [model]
    iterate: Callable[["Family", nn.Module, Batch, Optimizers], float] = descend
    held_out: Callable[["Family", nn.Module], float] = of_another_batch


def configured(head: str, kind: str, **options: object) -> Build:
    """A model of transformers with random weights. head: its class or Auto class, kind: the name of its
    configuration."""

    def build() -> nn.Module:
        transformers = import_module("transformers")
        config = transformers.AutoConfig.for_model(kind, **options)
        found = getattr(transformers, head)
        return found.from_config(config) if head.startswith("Auto") else found(config)

    return build
