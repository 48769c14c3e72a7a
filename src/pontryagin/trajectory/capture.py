"""The affine stages of a module, and the hooks that show them the inputs of its layers while a look is due.

Nothing is put on the model: the hooks are those that torch calls for every module, they are there only while
a look is due, and they go with the object that asked for them. (So scripts, exports, copies and pickles of
the model are those of the model alone.)
"""

import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from math import isfinite
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from pontryagin.affine import is_certain, maps_of, own_parameters
from pontryagin.trajectory.captured_stage import CapturedStage
from pontryagin.trajectory.recomputation import is_recomputed

Users = dict[int, list[CapturedStage]]
"""By the id of a module: the stages that its calls feed."""


@dataclass(frozen=True)
class Found:
    """A parameter that belongs to an affine map: its stage, or the stages that it may be. tied: also used by
    another map."""

    stages: tuple[CapturedStage, ...]
    certain: bool


class Capture:
    """The stages of a model, and the hooks that feed them: on() and off().

    stages: those that are certain, in the order of the model's parameters. open: by the id of the weight, the
    stages of which a look has to tell which it is, if any.
    """

    def __init__(self, model: nn.Module, rows: int | None) -> None:
        found, users = _find(model, rows)
        self.stages = [each.stages[0] for each in found if each.certain and len(each.stages) == 1]
        self.open = {id(each.stages[0].weight): each.stages for each in found if not each.certain
                     or len(each.stages) > 1}
        self._hooks = _Hooks({id(module): stages for module, stages in users},
                             [module for module, _ in users], model)

    @property
    def is_on(self) -> bool:
        """Whether the hooks are there."""
        return self._hooks.is_on

    @property
    def is_still(self) -> bool:
        """Whether the hooks are off, and have seen nothing that has not been taken, and no
        DistributedDataParallel."""
        hooks = self._hooks
        return not (hooks._handles or hooks.losses or hooks._parallel)

    @property
    def parallel(self) -> nn.Module | None:
        """The DistributedDataParallel that the model is in, or holds, if one has been seen."""
        return self._hooks.parallel

    def ask(self, renew: Callable[[], "Capture | None"]) -> None:
        """Ask at every call of the model, or of what is around it, whether another one is to see it: its
        parameters may have been replaced since."""
        self._hooks.renew = renew

    def take_loss(self) -> float | None:
        """The `.loss` of the model's outputs whose gradients have come since the last call, None without:
        their sum, each times its weight in what was backpropagated; their mean where that is a scaled
        loss."""
        found, self._hooks.losses = self._hooks.losses, []
        if not found:
            return None
        values, weights = zip(*((float(value), float(weight)) for value, weight in found), strict=True)
        if max(weights) > 1:
            weights = (1 / len(values),) * len(values)
        total = sum(value * weight for value, weight in zip(values, weights, strict=True))
        return total if isfinite(total) else None

    def take_last(self) -> nn.Parameter | None:
        """The weight of the stage that was called last in the passes since the last call, of which gradients
        may come; None without."""
        found, self._hooks.last = self._hooks.last, None
        return found

    def extend(self, later: "Capture") -> None:
        """With the stages of parameters that the model has got since."""
        known = {id(stage.weight) for stage in self.all_stages()}
        self.stages += [stage for stage in later.stages if id(stage.weight) not in known]
        self.open |= {key: stages for key, stages in later.open.items() if key not in known}
        kept = set(map(id, self.all_stages()))
        for key, stages in later._hooks.users.items():
            self._hooks.users.setdefault(key, []).extend(stage for stage in stages if id(stage) in kept)

    def on(self) -> None:
        """Let the stages that look see the inputs of the next passes."""
        self._hooks.on()

    def off(self) -> None:
        """Take all hooks off."""
        self._hooks.off()
        for stage in self.all_stages():
            stage.stop()

    def all_stages(self) -> Iterator[CapturedStage]:
        """Those that are certain and those that are open."""
        yield from self.stages
        for stages in self.open.values():
            yield from stages


class _Hooks:
    """The hooks that torch calls for every module, while they are on."""

    def __init__(self, users: Users, modules: Sequence[nn.Module], model: nn.Module) -> None:
        self.users, self.modules, self.model = users, modules, model
        self.renew: Callable[[], Capture | None] = lambda: None
        self._handles: list[Any] = []
        self.losses: list[tuple[Tensor, Tensor]] = []
        self.last: nn.Parameter | None = None
        self._left: nn.Module | None = None
        self._outermost: tuple[nn.Module, AbstractContextManager[Any]] | None = None
        self._compiled = False
        self._registered: list[Any] = []
        self._parallel: weakref.ref[nn.Module] | None = None
        self._tree = frozenset(map(id, model.modules()))
        for part in model.modules():
            self._see_parallel(part)
        weakref.finalize(self, _when_safe, partial(_remove, self._handles))
        weakref.finalize(self, _when_safe, partial(_remove, self._registered))

    @property
    def is_on(self) -> bool:
        return bool(self._handles)

    def on(self) -> None:
        if self._handles:
            return
        self.off()
        me = weakref.ref(self)

        def before(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            if torch.compiler.is_compiling():
                return
            if (hooks := me()) is None:
                _do_what_waits()  # torch goes through a copy of its hooks here
                return
            hooks.enter(module)

        def after(module: nn.Module, arguments: tuple[Any, ...], *named_and_output: Any) -> None:
            if torch.compiler.is_compiling() or (hooks := me()) is None:
                return
            try:
                # also called when it has been taken off, and after an error, without what was named
                if len(named_and_output) == 2:
                    hooks.leave(module, arguments, *named_and_output)
            finally:
                hooks.end(module, arguments)

        def registered(module: nn.Module, name: str, part: nn.Module | None) -> None:
            # torch.export refuses any global hook
            if type(module).__name__ == "ModuleToTrace" and (hooks := me()) is not None:
                _remove(hooks._handles)
                weakref.finalize(module, _when_safe, partial(_again, me))

        tree = list(self.model.modules())
        self._tree = frozenset(map(id, tree))
        self._compiled = any(getattr(module, "_compiled_call_impl", None) is not None for module in tree)
        self._handles += [torch_modules.register_module_forward_pre_hook(before),
                          torch_modules.register_module_forward_hook(after, with_kwargs=True,
                                                                     always_call=True)]
        self._registered.append(torch_modules.register_module_module_registration_hook(registered))

    def off(self) -> None:
        _do_what_waits()
        _remove(self._handles)
        _remove(self._registered)

    @property
    def parallel(self) -> nn.Module | None:
        return None if self._parallel is None else self._parallel()

    def _see_parallel(self, module: nn.Module) -> None:
        wrapper = sys.modules.get("torch.nn.parallel.distributed")
        if wrapper is not None and isinstance(module, wrapper.DistributedDataParallel):
            inside = id(module) in self._tree or any(part is self.model for part in module.modules())
            self._parallel = weakref.ref(module) if inside else self._parallel

    def enter(self, module: nn.Module) -> None:
        """Compiled parts run as they were written, for hooks are not part of what was compiled."""
        is_first = self._outermost is None and (module is self.model or id(module) not in self._tree)
        if is_first and (later := self.renew()) is not None:
            later._hooks.enter(module)
            return
        if self._outermost is None and self._is_compiled(module):
            self._outermost = module, torch.compiler.set_stance("force_eager")
            self._outermost[1].__enter__()
        self._see_parallel(module)

    def leave(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any],
              output: Any) -> None:
        """Remember the inputs until the costate of the output arrives: a forward pass without a backward pass
        leaves no trace."""
        self._left = module
        if is_recomputed():
            self._see_again(module, arguments, named, output)
            return
        if module is self.model and torch.is_grad_enabled():
            self._see_loss(output)
        users = self.users.get(id(module))
        first = output[0] if isinstance(output, tuple) and output else output
        if not (users and torch.is_grad_enabled() and isinstance(first, Tensor) and first.requires_grad):
            return
        self.last = users[-1].weight
        stages = [stage for stage in users if stage.is_looking]
        # not the loss of a training step
        if not stages or torch._C._functorch.is_functorch_wrapped_tensor(first) or torch.jit.is_tracing():
            return
        for stage in stages:
            stage.watch(stage.map.inputs(arguments, named, output), first, module is stage.module)

    def _see_loss(self, output: Any) -> None:
        """Of outputs that carry one, as those of Hugging Face's models; it counts when its gradient comes."""
        loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
        if isinstance(loss, Tensor) and loss.numel() == 1 and loss.requires_grad and not (
                torch._C._functorch.is_functorch_wrapped_tensor(loss) or torch.jit.is_tracing()):
            value, me = loss.detach(), weakref.ref(self)

            def count(weight: Tensor) -> None:
                if (hooks := me()) is not None:
                    hooks.losses.append((value, weight.detach()))

            loss.register_hook(count)

    def _see_again(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any],
                   output: Any) -> None:
        for stage in self.users.get(id(module), ()):
            if stage.is_looking and torch.is_grad_enabled():
                stage.recomputed(stage.map.inputs(arguments, named, output))

    def end(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """A call is over; if it has not been left, by an error: so torch ends a part that is computed again,
        in its last call."""
        if self._left is not module and is_recomputed():
            self._see_again(module, arguments, {}, None)
        self._left = None
        if self._outermost is not None and self._outermost[0] is module:
            self._outermost[1].__exit__(None, None, None)
            self._outermost = None

    def _is_compiled(self, module: nn.Module) -> bool:
        """Whether the call of a module, of this model or around it, may run code that torch.compile has
        made."""
        compiler = sys.modules.get("torch._dynamo.eval_frame")
        if compiler is None:
            return False
        if isinstance(module, compiler.OptimizedModule):
            return any(id(part) in self._tree for part in module._orig_mod.modules())
        return self._compiled and id(module) in self._tree


_WAITING: list[Callable[[], None]] = []
"""What is to be done to torch's hooks, but not while torch goes through them."""


def _when_safe(do: Callable[[], None]) -> None:
    """Now, unless a module of torch is being called or changed: an owner may be collected at any line, and a
    dictionary must not change while it is iterated over."""
    _WAITING.append(do)
    if not any(_is_inside_torch(frame) for frame in sys._current_frames().values()):
        _do_what_waits()


def _do_what_waits() -> None:
    while _WAITING:
        _WAITING.pop()()


def _is_inside_torch(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != torch_modules.__file__:
        frame = frame.f_back
    return frame is not None


def _again(me: "weakref.ref[_Hooks]") -> None:
    """What kept the hooks off is gone; they come back if they still are wanted."""
    if (hooks := me()) is not None and hooks._registered:
        hooks.on()


def _remove(handles: list[Any]) -> None:
    for handle in handles:
        handle.remove()
        torch_modules._global_forward_hooks_with_kwargs.pop(handle.id, None)  # which torch leaves behind
    handles.clear()


def capture(model: nn.Module, rows: int | None) -> tuple[list[CapturedStage], Capture]:
    """The certain stages of a model, the first of their alternatives, looking, and what keeps the hooks that
    feed them on."""
    captured = Capture(model, rows)
    order = {id(parameter): n for n, parameter in enumerate(model.parameters())}
    first = [stages[0] for stages in captured.open.values() if stages[0].certain]
    stages = sorted([*captured.stages, *first], key=lambda stage: order[id(stage.weight)])
    for stage in stages:
        stage.look(armed=True, probing=False)
    captured.on()
    return stages, captured


def find_stages(model: nn.Module) -> tuple[list[CapturedStage], list[tuple[nn.Module, list[CapturedStage]]]]:
    """The affine stages that are certain, in the order of the model's parameters, and the modules that
    compute them; nothing is hooked."""
    found, users = _find(model, None)
    stages = [each.stages[0] for each in found if is_certain(each.stages[0].module)]
    kept = {id(stage) for stage in stages}
    of = [(module, [stage for stage in fed if id(stage) in kept]) for module, fed in users]
    return stages, [(module, fed) for module, fed in of if fed]


def _find(model: nn.Module, rows: int | None) -> tuple[list[Found],
                                                       list[tuple[nn.Module, list[CapturedStage]]]]:
    """Each parameter has one entry: of the first module that names it as an affine map. An embedding whose
    table is tied to a linear layer's weight leaves it to the linear layer."""
    taken: dict[int, Found] = {}
    by_module: dict[int, list[CapturedStage]] = {}
    modules = sorted(_modules(model), key=lambda item: isinstance(item[1], nn.Embedding))
    for name, module in modules:
        for one in maps_of(module):
            parameter = own_parameters(module).get(one.weight)
            if parameter is None or not (parameter.is_floating_point() and parameter.numel()):
                continue  # reparametrized: what is trained is not W; complex, or without entries
            fed = by_module.setdefault(id(module), [])
            # tied: the same stage sees the inputs of both, if they are of one kind
            if id(parameter) in taken:
                kinds = {(layer.kind, one.certain) for layer in one.maps}
                fed += [stage for stage in taken[id(parameter)].stages
                        if (stage.map.kind, stage.certain) in kinds]
                for stage in taken[id(parameter)].stages:
                    stage.tied = True
                continue
            full = f"{name}.{one.weight}".lstrip(".")
            stages = tuple(CapturedStage(full, module, layer, rows, one.certain)
                           for layer in one.maps)
            taken[id(parameter)] = Found(stages, one.certain)
            fed += stages
    order = {id(parameter): n for n, parameter in enumerate(model.parameters())}
    users = [(module, by_module[id(module)]) for _, module in modules if by_module.get(id(module))]
    return sorted(taken.values(), key=lambda each: order[id(each.stages[0].weight)]), users


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules but those whose weights another module uses without calling them."""
    bypassed = {id(module.out_proj)
                for module in model.modules() if isinstance(module, nn.MultiheadAttention)}
    return ((name, module) for name, module in model.named_modules() if id(module) not in bypassed)
