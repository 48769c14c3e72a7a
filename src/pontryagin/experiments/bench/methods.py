"""The optimizers of the benchmark, each with its grid of learning rates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.experiments.errors import ExperimentError
from pontryagin.optim import EMSA


class Several:
    """Optimizers for different parameters as one."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers
        self.param_groups = [group for optimizer in optimizers for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        """Of all."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        """Of all."""
        for optimizer in self.optimizers:
            optimizer.step()


@dataclass(frozen=True)
class Method:
    """make(model, rate); the first of `rates` is the customary default. One rate: it is not tuned."""

    name: str
    make: Callable[[nn.Module, float], Any]
    rates: tuple[float, ...]


def _muon(model: nn.Module, rate: float) -> Several:
    """Muon on weights of two dimensions or more of hidden layers (convolutions flattened), AdamW with 0.1 rate elsewhere."""
    if not hasattr(torch.optim, "Muon"):
        raise ExperimentError("muon needs torch >= 2.9: update torch or leave it out of --methods")
    hidden = [module.weight for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    matrices = [weight for weight in hidden if weight.ndim == 2][:-1]
    chosen = {id(weight) for weight in matrices}
    filters = [weight for weight in hidden if weight.ndim == 4]
    rest = [p for p in model.parameters() if id(p) not in chosen | {id(f) for f in filters}]
    parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=0.1 * rate, weight_decay=0.0)]
    if matrices:
        parts.append(torch.optim.Muon(matrices, lr=rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
    if filters:
        parts.append(FlattenedMuon(filters, rate))
    return Several(*parts)


class FlattenedMuon(torch.optim.Muon if hasattr(torch.optim, "Muon") else torch.optim.SGD):  # type: ignore[misc]
    """Muon on convolutions, as matrices (output, input * kernel)."""

    def __init__(self, filters: Sequence[Tensor], rate: float) -> None:
        self._filters = list(filters)
        self._matrices = [nn.Parameter(weight.detach().flatten(1).clone()) for weight in filters]
        super().__init__(self._matrices, lr=rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Copy gradients in and weights out."""
        for matrix, weight in zip(self._matrices, self._filters, strict=True):
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
        super().step(closure)
        for matrix, weight in zip(self._matrices, self._filters, strict=True):
            weight.copy_(matrix.view(weight.shape))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of the filters themselves."""
        for weight in self._filters:
            weight.grad = None


def _second_order(name: str) -> Callable[[nn.Module, float], Any]:
    def make(model: nn.Module, rate: float) -> Any:
        try:
            import pytorch_optimizer
        except ImportError as error:
            raise ExperimentError(f"{name} comes with pytorch-optimizer: pip install 'pontryagin[baselines]', or leave it out "
                                  "of --methods") from error
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # they flatten gradients by view
        return getattr(pytorch_optimizer, name)(model.parameters(), lr=rate)
    return make


_ADAM = (1e-3, 2e-3, 5e-3, 1e-2)

METHODS = {method.name: method for method in (
    Method("emsa", lambda model, rate: EMSA(model, lr=rate), (0.03,)),
    Method("adam", lambda model, rate: torch.optim.Adam(model.parameters(), lr=rate), _ADAM),
    Method("adamw", lambda model, rate: torch.optim.AdamW(model.parameters(), lr=rate), _ADAM),
    Method("sgd", lambda model, rate: torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9), (1e-2, 3e-2, 1e-1, 3e-1)),
    Method("muon", _muon, (1e-2, 3e-3, 2e-2, 4e-2)),
    Method("soap", _second_order("SOAP"), (3e-3, 1e-3, 5e-3, 1e-2)),
    Method("shampoo", _second_order("ScalableShampoo"), (1e-3, 3e-4, 3e-3, 1e-2)),
    Method("adam-default", lambda model, rate: torch.optim.Adam(model.parameters(), lr=rate), (1e-3,)),
)}


def choose(names: Sequence[str] | None) -> list[Method]:
    """The methods with these names, all if None."""
    unknown = sorted(set(names or ()) - METHODS.keys())
    if unknown:
        raise ExperimentError(f"unknown method {', '.join(map(repr, unknown))}: expected one or more of {', '.join(METHODS)}")
    return [method for method in METHODS.values() if names is None or method.name in names]
