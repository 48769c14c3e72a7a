"""Hooks that see the inputs of the affine stages of a module, and commit them when their costates come back."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.optim.layers import Layer, layer_of
from pontryagin.optim.moments import IndexMoments, InputMoments


class CapturedStage:
    """An affine stage of a module: its layer, its parameters, and the moments of its inputs.

    gradient_check, when set, also sums u x^T and u over all calls: exactly minus the gradients of W and b.
    """

    def __init__(self, name: str, module: nn.Module, layer: Layer) -> None:
        self.name, self.module, self.layer = name, module, layer
        self.weight: nn.Parameter = getattr(module, layer.weight)
        self.bias: nn.Parameter | None = getattr(module, layer.bias) if layer.bias else None
        self.moments = IndexMoments(self.weight.shape[0]) if layer.one_hot else InputMoments()
        self.positions = 0
        """Rows of the last call, all of them, and so the stage's share of the work."""
        self.gradient_check: list[tuple[Tensor, Tensor]] | None = None

    def commit(self, inputs: Tensor, rows: int | None) -> None:
        """Add the inputs of one call to the moments: at most about `rows` positions, whole samples, evenly spaced."""
        self.moments.add(self.layer.rows(_thin(inputs, self.positions, rows)))


class StageHook:
    """The forward hook of a module. Copies of the module carry a copy that does nothing."""

    def __init__(self, stages: list[CapturedStage], rows: int | None) -> None:
        self.stages, self.rows, self.armed = stages, rows, False

    def __deepcopy__(self, memo: dict[int, Any]) -> "StageHook":
        return StageHook([], None)

    def __reduce__(self) -> tuple[Any, ...]:
        return StageHook, ([], None)

    @torch.compiler.disable
    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        """Remember the inputs until the costate of the output arrives: a forward pass without a backward pass leaves no trace."""
        if not (self.armed and self.stages and torch.is_grad_enabled() and arguments and isinstance(output, Tensor)
                and output.requires_grad and isinstance(arguments[0], Tensor)):
            return
        inputs = arguments[0].detach()

        def arrive(costate: Tensor) -> None:
            for stage in self.stages:
                stage.positions = max(output.numel() // max(_width(stage), 1), 1)
                stage.commit(inputs, self.rows)
                if stage.gradient_check is not None:
                    stage.gradient_check.append(_gradients(stage.layer, inputs, costate))

        output.register_hook(arrive)


def capture(model: nn.Module, rows: int | None) -> tuple[list[CapturedStage], list[StageHook]]:
    """Hooks on every supported module, each parameter in one stage: the first module that names it as an affine map.

    An embedding whose table is tied to a linear layer's weight leaves it to the linear layer.
    """
    taken: dict[int, CapturedStage] = {}
    by_module: dict[int, list[CapturedStage]] = {}
    modules = sorted(_modules(model), key=lambda item: isinstance(item[1], nn.Embedding))
    for name, module in modules:
        for layer in layer_of(module):
            parameter = getattr(module, layer.weight)
            if id(parameter) in taken:  # tied: the same stage sees the inputs of both, if they are of one kind
                stage = taken[id(parameter)]
                if stage.layer.kind == layer.kind:
                    by_module.setdefault(id(module), []).append(stage)
                continue
            stage = CapturedStage(f"{name}.{layer.weight}".lstrip("."), module, layer)
            taken[id(parameter)] = stage
            by_module.setdefault(id(module), []).append(stage)
    hooks = []
    for _, module in modules:
        if id(module) in by_module:
            hook = StageHook(by_module[id(module)], rows)
            module.register_forward_hook(hook)
            hooks.append(hook)
    order = {id(parameter): n for n, parameter in enumerate(model.parameters())}
    return sorted(taken.values(), key=lambda stage: order[id(stage.weight)]), hooks


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules but those whose weights another module uses without calling them."""
    bypassed = {id(module.out_proj) for module in model.modules() if isinstance(module, nn.MultiheadAttention)}
    return ((name, module) for name, module in model.named_modules() if id(module) not in bypassed)


def _width(stage: CapturedStage) -> int:
    """Outputs of the module at one position."""
    if stage.layer.kind.startswith("ConvTranspose"):
        return stage.weight.shape[1] * getattr(stage.module, "groups", 1)
    return stage.weight.shape[-1] if stage.layer.one_hot else stage.weight.shape[0]


def _thin(inputs: Tensor, positions: int, rows: int | None) -> Tensor:
    if rows is None or inputs.shape[0] <= 8 or positions <= rows:
        return inputs
    kept = max(inputs.shape[0] * rows // positions, 8)
    return inputs[::-(-inputs.shape[0] // kept)]


def _gradients(layer: Layer, inputs: Tensor, costate: Tensor) -> tuple[Tensor, Tensor]:
    u, x = layer.outputs(costate.detach()), layer.rows(inputs)
    if layer.one_hot:
        size = int(inputs.max()) + 1
        x = torch.nn.functional.one_hot(x.squeeze(2), size).to(u.dtype)
    return u.mT @ x, u.sum(1)
