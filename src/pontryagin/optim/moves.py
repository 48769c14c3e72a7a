"""What a step would do to parameters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pontryagin.trajectory.local import local_part


class Moves(NamedTuple):
    """Of parameters W that share a rate: W <- W + length (rate * direction - decay * W), decay of matrices
    alone, length 1 for a whole step. directions: of the parts of W that lie here. place: adds so much of them
    to W, where it is known how to do that at once."""

    parameters: list[Tensor]
    directions: list[Tensor]
    rate: float
    decay: float = 0.0
    place: Callable[[float], None] | None = None

    @classmethod
    def of(cls, parameters: list[Tensor], directions: list[Tensor], group: Mapping[str, Any],
           scale: float = -1.0, place: Callable[[float], None] | None = None) -> "Moves":
        """At the rate of their param group, times scale."""
        rate = float(group["lr"])
        return cls(parameters, directions, scale * rate, rate * float(group["weight_decay"]), place)

    def changes(self) -> list[Tensor]:
        """Of the whole step."""
        found = list(torch._foreach_mul(self.directions, self.rate))
        pulled = [n for n, parameter in enumerate(self.parameters) if self.decay and parameter.ndim > 1]
        if pulled:
            torch._foreach_add_([found[n] for n in pulled], [local_part(self.parameters[n]) for n in pulled],
                                alpha=-self.decay)
        return found

    def apply(self, length: float) -> None:
        """In place, so much of them."""
        if self.place is not None:
            pull(self.parameters, self.decay * length)
            self.place(self.rate * length)
            return
        directions, rate = (self.changes(), 1.0) if self.decay else (self.directions, self.rate)
        fitting = [direction if direction.dtype == parameter.dtype else direction.to(parameter.dtype)
                   for parameter, direction in zip(self.parameters, directions, strict=True)]
        torch._foreach_add_(list(map(local_part, self.parameters)), fitting, alpha=rate * length)

    def predicted(self) -> float:
        """The decrease of the loss that the whole step promises to first order."""
        return -sum(float((parameter.grad.to(change.dtype) * change).sum())
                    for parameter, change in zip(self.parameters, self.changes(), strict=True)
                    if parameter.grad is not None)


def pull(parameters: Sequence[Tensor], decay: float) -> None:
    """W <- (1 - decay) W of matrices alone."""
    if decay and (matrices := [one for one in parameters if one.ndim > 1]):
        with torch.no_grad():
            torch._foreach_mul_(matrices, 1 - decay)
