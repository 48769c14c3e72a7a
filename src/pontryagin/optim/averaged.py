"""`Averaged`: the averages that EMSA keeps, for any torch optimizer."""

import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.errors import ProblemError
from pontryagin.optim.averaged_state import with_averages, without_averages
from pontryagin.optim.averages import AVERAGING, Averages, Known
from pontryagin.optim.state import AverageState
from pontryagin.trajectory.local import at_rest, is_spread


class Averaged(torch.optim.Optimizer):
    """Any torch optimizer with the averages that EMSA keeps.

        optimizer = Averaged(torch.optim.AdamW(model.parameters(), 1e-3))
        ...                   # train as before: schedulers, scalers and closures see an optimizer
        optimizer.eval()      # the averages are in the model, to be evaluated or saved
        optimizer.train()     # and the controls again, bit by bit, before the next step

    optimizer: whose parameters are averaged, after each of its steps; groups, state and hooks stay its own.
    What else writes to a parameter between two steps, a clamp as much as model.load_state_dict, begins a new
    average of it. averaging: eta, so that about the last 1 / (eta + 1) of all steps count. state_dict() is
    the optimizer's, with an average beside what it keeps of each parameter; where parameters lie in parts
    over processes (`fully_shard`), so do the averages, and torch.distributed.checkpoint takes them from any
    number of processes to any other; there eval() has to know the model, by evaluate_averages. A copy or
    pickle has an optimizer and parameters of its own. Raises ProblemError for a wrong eta, for what is no
    optimizer or no such state, for a step while the averages are shown, and for eval() where parameters lie
    in parts and the model is not known.
    """

    _model: Callable[[], nn.Module | None] = staticmethod(lambda: None)

    def __init__(self, optimizer: torch.optim.Optimizer, averaging: float = AVERAGING) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ProblemError(f"Averaged: expected a torch optimizer, found {type(optimizer).__name__}")
        if isinstance(optimizer, Averaged):
            raise ProblemError("Averaged: expected an optimizer without averages, found Averaged")
        if not (isinstance(averaging, int | float) and 0 <= averaging < inf):
            raise ProblemError(f"Averaged: expected averaging >= 0 and finite, found {averaging!r}")
        self.optimizer, self.averaging, self.steps, self.is_shown = optimizer, averaging, 0, False
        self._averages, self._states = Averages(), defaultdict[Tensor, dict[str, Tensor]](dict)
        super().__init__(optimizer.param_groups, optimizer.defaults)
        self._is_made = True

    def __getattribute__(self, name: str) -> Any:
        """Groups and state are always those of the optimizer inside, whatever it has loaded since; of one
        that keeps nothing the averages, as torch.distributed.checkpoint has optimizers without a state make a
        step."""
        if name in ("param_groups", "state") and "_is_made" in object.__getattribute__(self, "__dict__"):
            found = getattr(self.optimizer, name)
            return found if found or name != "state" or not self.steps else self._states
        return super().__getattribute__(name)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """To the optimizer."""
        if "_is_made" in vars(self):
            self.optimizer.add_param_group(param_group)
        else:
            self.param_groups.append(param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """The optimizer's; then the controls enter the averages."""
        if self.is_shown:
            raise ProblemError("Averaged: the model holds the averages, as eval() put them there: call "
                               "optimizer.train() before the next step")
        self._averages.begin_anew(self._known())
        result = self.optimizer.step(closure)
        self.steps += 1
        with torch.no_grad():
            self._averages.remember(self._known(), self.steps, self.averaging)
        return result

    @torch.inference_mode(False)
    @torch.no_grad()
    def eval(self) -> None:
        """Show the averages. Again: nothing."""
        if not self.is_shown:
            self._rest()
            self._averages.show(self._known())
        self.is_shown = True

    @torch.inference_mode(False)
    @torch.no_grad()
    def train(self) -> None:
        """Hide them. Again: nothing."""
        if self.is_shown:
            self._rest()
            self._averages.hide(self._known())
        self.is_shown = False

    def follow(self, model: nn.Module) -> None:
        """The model of the parameters, which are to lie in parts when averages are shown or hidden: after a
        pass without a backward pass fully_shard has some whole, and would not see what is written."""
        self._model = weakref.ref(model)

    def _rest(self) -> None:
        model = self._model()
        if model is not None:
            at_rest(model)
        elif any(is_spread(parameter) for parameter, _ in self._known()):
            raise ProblemError("Averaged: parameters lie in parts over processes: call evaluate_averages("
                               "model, optimizer) first, so that the model is known")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """The optimizer's."""
        self.optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's, with the averages beside what it keeps of each parameter."""
        whole = {**super().state_dict(), **self.optimizer.state_dict()}  # its hooks; and its own way
        return with_averages(whole, list(self._known()), self.steps, self.is_shown)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from such a state. Averages that are shown leave the model before."""
        parameters = [parameter for parameter, _ in self._known()]
        inside, averages, steps, is_shown = without_averages(state_dict, parameters)
        self.optimizer.load_state_dict(inside)
        self.train()
        self._take({"steps": steps, "is_shown": is_shown, "averages": averages})

    def _take(self, saved: Mapping[str, Any]) -> None:
        self.steps, self.is_shown, self._averages = saved["steps"], saved["is_shown"], Averages()
        for (parameter, state), entries in zip(self._known(), saved["averages"], strict=True):
            state.entries.clear()
            state.entries |= {name: value.to(parameter.device, copy=True) for name, value in entries.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer, "averaging": self.averaging, "steps": self.steps,
                "is_shown": self.is_shown, "averages": [dict(state.entries) for _, state in self._known()]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.optimizer, self.averaging = state["optimizer"], state["averaging"]
        self._states = defaultdict[Tensor, dict[str, Tensor]](dict)
        super().__setstate__({"defaults": self.optimizer.defaults})
        self._is_made = True
        self._take(state)

    def _known(self) -> Known:
        return [(parameter, AverageState(self._states[parameter]))
                for group in self.optimizer.param_groups for parameter in group["params"]]
