"""Hooks that see the inputs of the affine stages of a module, and commit them when their costates come back."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.optim.growth import Glance
from pontryagin.optim.layers import Layer, layer_of
from pontryagin.optim.moments import IndexMoments, InputMoments, Moments
from pontryagin.optim.precision import full_precision, wide

_LEAST, _GLANCE = 8, 4
"""Samples that enter the moments at least, and what part of the rows is enough for a glance; so few samples only for
convolutions, whose first axis is certain to be one of samples."""


class CapturedStage:
    """An affine stage of a module: its layer, its parameters, and the moments of its inputs.

    armed: whether to take the moments of inputs; glancing: whether at least their mean and variance. seen: whether any have come.
    gradient_check, when set, also lists u x^T and u of every call, summed over its positions with u the gradient at z: together
    exactly the gradients of W and b.
    """

    def __init__(self, name: str, module: nn.Module, layer: Layer) -> None:
        self.name, self.module, self.layer = name, module, layer
        self.weight: nn.Parameter = getattr(module, layer.weight)
        self.bias: nn.Parameter | None = getattr(module, layer.bias) if layer.bias else None
        self.moments = IndexMoments(self.weight.shape[0], wide(self.weight.dtype)) if layer.one_hot else InputMoments()
        self.armed, self.glancing, self.seen = True, False, False
        self.glance = Glance()
        self.calls = self.positions = 0
        """Of the last batch, and the rows of all its calls: the stage's share of the work."""
        self._counted = False
        self.gradient_check: list[tuple[Tensor, Tensor]] | None = None

    def commit(self, inputs: Tensor, positions: int, rows: int | None) -> None:
        """Add the inputs of one call to the moments, or to what is glanced at: at most about `rows` positions, whole samples,
        evenly spaced."""
        if inputs.ndim < self.weight.ndim:  # a single sample, without an axis of samples
            rows = None
        if not self.armed:
            if self.glancing:
                least = _LEAST if self.weight.ndim == 2 else _LEAST // _GLANCE
                self.glance.add(self.layer.rows(_thin(inputs, positions, None if rows is None else rows // _GLANCE, least)))
            return
        if not self._counted:
            self.calls = self.positions = 0
        self.seen = self._counted = True
        self.calls, self.positions = self.calls + 1, self.positions + positions
        self.moments.add(self.layer.rows(_thin(inputs, positions, rows, _LEAST)))

    def take(self) -> Moments | None:
        """The moments of the batch; the next call belongs to another one."""
        self._counted = False
        return self.moments.take()

    def forget(self) -> None:
        """Drop what has been seen of a batch."""
        self.take()
        self.glance.take()


class StageHook:
    """The forward hook of a module. Copies of the module carry a copy that does nothing."""

    def __init__(self, stages: list[CapturedStage], rows: int | None) -> None:
        self.stages, self.rows = stages, rows

    def __deepcopy__(self, memo: dict[int, Any]) -> "StageHook":
        return StageHook([], None)

    def __reduce__(self) -> tuple[Any, ...]:
        return StageHook, ([], None)

    @torch.compiler.disable
    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        """Remember the inputs until the costate of the output arrives: a forward pass without a backward pass leaves no trace."""
        stages = [stage for stage in self.stages if (stage.armed or stage.glancing) and stage.weight.requires_grad]
        first = output[0] if isinstance(output, tuple) else output
        if not (stages and torch.is_grad_enabled() and isinstance(first, Tensor) and first.requires_grad):
            return
        if torch._C._functorch.is_functorch_wrapped_tensor(first):  # vmap, grad: not the loss of a training step
            return
        found = stages[0].layer.inputs(arguments, named)
        if found is None:
            return
        held, size = [found.detach()], first.numel()

        def arrive(costate: Tensor) -> None:
            if not held:  # a second backward pass through the same graph
                return
            inputs = held.pop()  # the graph may live on, its inputs need not
            with full_precision(inputs.device):
                for stage in stages:
                    stage.commit(inputs, _positions(stage, inputs.numel(), size), self.rows)
                    if stage.gradient_check is not None and stage.layer.outputs is not None:
                        stage.gradient_check.append(_gradients(stage, inputs, costate))

        first.register_hook(arrive)


def capture(model: nn.Module, rows: int | None) -> tuple[list[CapturedStage], list[StageHook]]:
    """Hooks on every supported module, and the stages that they feed."""
    stages, users = find_stages(model)
    hooks = []
    for module, fed in users:
        hook = StageHook(fed, rows)
        module.register_forward_hook(hook, with_kwargs=True)
        hooks.append(hook)
    return stages, hooks


def find_stages(model: nn.Module) -> tuple[list[CapturedStage], list[tuple[nn.Module, list[CapturedStage]]]]:
    """The affine stages of a model in the order of its parameters, and the modules that compute them; nothing is hooked.

    Each parameter is in one stage: the first module that names it as an affine map. An embedding whose table is tied to a
    linear layer's weight leaves it to the linear layer.
    """
    taken: dict[int, CapturedStage] = {}
    by_module: dict[int, list[CapturedStage]] = {}
    modules = sorted(_modules(model), key=lambda item: isinstance(item[1], nn.Embedding))
    for name, module in modules:
        for layer in layer_of(module):
            parameter = module._parameters.get(layer.weight)
            if parameter is None:  # reparametrized: what is trained is not W
                continue
            if id(parameter) in taken:  # tied: the same stage sees the inputs of both, if they are of one kind
                stage = taken[id(parameter)]
                if stage.layer.kind == layer.kind:
                    by_module.setdefault(id(module), []).append(stage)
                continue
            stage = CapturedStage(f"{name}.{layer.weight}".lstrip("."), module, layer)
            taken[id(parameter)] = stage
            by_module.setdefault(id(module), []).append(stage)
    order = {id(parameter): n for n, parameter in enumerate(model.parameters())}
    users = [(module, by_module[id(module)]) for _, module in modules if id(module) in by_module]
    return sorted(taken.values(), key=lambda stage: order[id(stage.weight)]), users


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules but those whose weights another module uses without calling them."""
    bypassed = {id(module.out_proj) for module in model.modules() if isinstance(module, nn.MultiheadAttention)}
    return ((name, module) for name, module in model.named_modules() if id(module) not in bypassed)


def _positions(stage: CapturedStage, inputs: int, outputs: int) -> int:
    """Rows of a call, from the numbers of elements of its inputs and of its output."""
    kind, shape = stage.layer.kind, stage.weight.shape
    if stage.layer.one_hot:
        return inputs
    if kind == "MultiheadAttention":
        return inputs // shape[1]
    if kind.startswith("ConvTranspose"):
        return inputs // shape[0]
    return outputs // (shape[0] if kind == "Linear" or kind.startswith("Conv") else stage.weight.numel())


def _thin(inputs: Tensor, positions: int, rows: int | None, least: int) -> Tensor:
    """At least so many samples."""
    if rows is None or inputs.shape[0] <= least or positions <= rows:
        return inputs
    kept = max(inputs.shape[0] * rows // positions, least)
    return inputs[::-(-inputs.shape[0] // kept)]


def _gradients(stage: CapturedStage, inputs: Tensor, costate: Tensor) -> tuple[Tensor, Tensor]:
    assert stage.layer.outputs is not None
    u, x = stage.layer.outputs(costate.detach()), stage.layer.rows(inputs)
    if stage.layer.one_hot:
        x = torch.nn.functional.one_hot(x.squeeze(2), stage.weight.shape[0]).to(u.dtype)
        if isinstance(padding := stage.module.padding_idx, int):
            x[..., padding] = 0
    return u.mT @ x.to(u.dtype).expand(-1, u.shape[1], -1), u.sum(1)
