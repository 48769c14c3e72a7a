"""What a stage computes: a function g(x, theta), theta a mapping from names to tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pontryagin.errors import ProblemError

Parameters = Mapping[str, Tensor]
Dynamics = Callable[[Tensor, Parameters], Tensor]
"""g(x, theta): x is (sample, *state). Each sample's result must depend on that sample only."""

_COUPLES_SAMPLES = (nn.modules.batchnorm._BatchNorm,)
_RANDOM = (nn.modules.dropout._DropoutNd,)


class ModuleDynamics:
    """g(x, theta) = module(x) with theta in the place of the module's parameters.

    Two are equal when the modules have the same structure, settings and buffers, whatever the values
    of their parameters: such stages are batched.
    """

    def __init__(self, module: nn.Module) -> None:
        for name, child in module.named_modules():
            _refuse_unfit(name or type(module).__name__, child)
        self.module = module

    def __call__(self, state: Tensor, parameters: Parameters) -> Tensor:
        return torch.func.functional_call(self.module, dict(parameters), (state,))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModuleDynamics) and same_structure(self.module, other.module)

    def __hash__(self) -> int:
        return hash((ModuleDynamics, type(self.module)))

    def __repr__(self) -> str:
        return repr(self.module)


@dataclass(frozen=True)
class EulerStep:
    """g(x, theta) = x + step_size * f(x, theta): one explicit Euler step of dX/dt = f."""

    dynamics: Dynamics
    step_size: float

    def __call__(self, state: Tensor, parameters: Parameters) -> Tensor:
        change = self.dynamics(state, parameters)
        if change.shape != state.shape:
            raise ValueError(f"the dynamics f maps states of shape {tuple(state.shape[1:])} to "
                             f"{tuple(change.shape[1:])}; an Euler step needs equal shapes")
        return state + self.step_size * change


def _refuse_unfit(name: str, module: nn.Module) -> None:
    """States and costates are per sample and a stage is evaluated many times: g must be a fixed function."""
    if isinstance(module, _COUPLES_SAMPLES) and (module.training or not module.track_running_stats):
        raise ProblemError(f"module {name} ({type(module).__name__}) couples the samples of a batch; "
                           "expected a stage that treats each sample alone: call .eval() on it, or use "
                           "GroupNorm or LayerNorm")
    if isinstance(module, _RANDOM) and module.training and module.p > 0:
        raise ProblemError(f"module {name} ({type(module).__name__}) is random; expected a stage that is a "
                           "fixed function: call .eval() on it")
    if isinstance(module, nn.Embedding) and (module.max_norm is not None or module.sparse):
        raise ProblemError(f"module {name} (Embedding) changes its table in the forward pass, or has sparse "
                           "gradients; expected a stage that is a fixed function: leave out max_norm and "
                           "sparse")


def same_structure(first: nn.Module, second: nn.Module) -> bool:
    """Whether two modules compute the same function of (x, theta).

    They do when types, settings, buffers, children and the shapes of parameters agree. A setting that is
    neither plain data nor the same object counts as different: a missed batching is slow, a wrong one false.
    """
    if first is second:
        return True
    if (type(first) is not type(second) or not _same_settings(first, second)
            or _shapes(first) != _shapes(second)):
        return False
    buffers, others = dict(first.named_buffers(recurse=False)), dict(second.named_buffers(recurse=False))
    if buffers.keys() != others.keys() or not all(torch.equal(buffers[key], others[key]) for key in buffers):
        return False
    children, twins = dict(first.named_children()), dict(second.named_children())
    return list(children) == list(twins) and all(same_structure(children[key], twins[key])
                                                 for key in children)


_PLAIN = (int, float, str, bool, tuple, type(None), torch.dtype, torch.device)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
# parameters, buffers and children are compared on their own
_TORCH = frozenset(vars(nn.Module())) - {"training"}


def _same_settings(first: nn.Module, second: nn.Module) -> bool:
    if any(list(vars(first)[key].values()) != list(vars(second)[key].values()) for key in _HOOKS):
        return False
    ours, theirs = ({key: value for key, value in vars(module).items() if key not in _TORCH}
                    for module in (first, second))
    return ours.keys() == theirs.keys() and all(
        value is theirs[key] or (isinstance(value, _PLAIN) and value == theirs[key])
        for key, value in ours.items())


def _shapes(module: nn.Module) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [(name, value.shape, value.dtype) for name, value in module.named_parameters(recurse=False)]


def identity(state: Tensor) -> Tensor:
    """x."""
    return state
