"""Averages by themselves: in the model whenever it is evaluated or saved, by hooks that any training loop
calls."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pontryagin.errors import ProblemError
from pontryagin.optim.averaged import Averaged
from pontryagin.optim.emsa import EMSA
from pontryagin.trajectory.local import at_rest, shards_around


def evaluate_averages(model: nn.Module, optimizer: Any) -> "EvaluatedAverages":
    """From now on what is evaluated and saved are the averages, and what is trained are the controls.

        evaluate_averages(model, optimizer)

    Averages are put into the model by a call in evaluation mode without gradients (`model.eval()`,
    `torch.no_grad()`) and by `state_dict()` of the model or the optimizer; the controls come back, bit by
    bit, by any other call and by `optimizer.step()`. A checkpoint of both state_dicts has the averages as
    weights and goes on from the controls.

    model: the module that the loop calls, after fully_shard or Accelerate's prepare where there is one; a
    call of a part of it alone is not noticed. optimizer: EMSA or Averaged, or a wrapper whose `.optimizer` is
    one. Copies and pickles of the model do not follow. Where stages have owners, or parameters lie in parts,
    every process has to evaluate and save. Returns what takes the hooks off again: remove(). Raises
    ProblemError for another optimizer, and for what is no module.
    """
    return EvaluatedAverages(model, optimizer)


class EvaluatedAverages:
    """The hooks: remove() takes them off."""

    def __init__(self, model: nn.Module, optimizer: Any) -> None:
        inside = optimizer
        while not isinstance(inside, EMSA | Averaged | None):
            inside = getattr(inside, "optimizer", None)
        if not isinstance(model, nn.Module) or inside is None:
            raise ProblemError("evaluate_averages: expected a module and EMSA or Averaged, found "
                               f"{type(model).__name__} and {type(optimizer).__name__}")
        if (name := shards_around(model)) is not None:
            raise ProblemError(f"evaluate_averages: {name} is sharded from outside of this "
                               f"{type(model).__name__}: pass the module that fully_shard was called on")
        optimizer = inside
        if isinstance(optimizer, Averaged):
            optimizer.follow(model)
        self._model: weakref.ref[nn.Module] = weakref.ref(model)
        self._optimizer: weakref.ref[EMSA | Averaged] = weakref.ref(optimizer)
        # not a decorator: that loads the compiler wherever EMSA is imported
        called = model.register_forward_pre_hook(_Hook(torch.compiler.disable(self._called)), prepend=True)
        self._number = called.id
        self._handles = [called, model.register_state_dict_pre_hook(_Hook(self._saved)),
                         optimizer.register_state_dict_pre_hook(_Hook(self._saved)),
                         optimizer.register_step_pre_hook(_Hook(self._stepped))]

    def remove(self) -> None:
        """The model stays as it is."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _put(self, shown: bool) -> None:
        model, optimizer = self._model(), self._optimizer()
        if model is None or optimizer is None or optimizer.is_shown == shown:
            return
        with torch.inference_mode(False):  # else what is kept aside could not be written to any more
            at_rest(model)
            (optimizer.eval if shown else optimizer.train)()

    def _called(self, module: nn.Module, *_: Any) -> None:
        shown, optimizer = not (module.training or torch.is_grad_enabled()), self._optimizer()
        hooks = module._forward_pre_hooks
        if next(iter(hooks)) != self._number and self._number in hooks:
            # fully_shard has come later, and has gathered the parameters of this call already
            hooks.move_to_end(self._number, last=False)  # type: ignore[attr-defined]
            if optimizer is not None and optimizer.is_shown != shown and hasattr(module, "unshard"):
                raise ProblemError("evaluate_averages: the model has been sharded since: call "
                                   "evaluate_averages after fully_shard, or after Accelerate's prepare")
        self._put(shown)

    def _saved(self, *_: Any) -> None:
        self._put(True)

    def _stepped(self, *_: Any) -> None:
        self._put(False)


class _Hook:
    """Of a model: copies and pickles of it do nothing."""

    def __init__(self, do: Callable[..., None]) -> None:
        self._do = do

    def __call__(self, *arguments: Any) -> None:
        self._do(*arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _Hook, (_nothing,)


def _nothing(*_: Any) -> None:
    """What a copy does."""
