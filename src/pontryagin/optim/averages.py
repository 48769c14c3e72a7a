"""Polynomial-decay averages of the controls: what is evaluated and kept, while the steps go on from the last
controls.

With a step of constant length the controls end up circling a minimum, at a distance that the noise of the
batches sets. Their average lies nearer to it, and the window of

    a_k = (1 - c_k) a_{k-1} + c_k theta_k,   c_k = (eta + 1) / (k + eta)

grows with the number of steps k: about the last k / (eta + 1) of them count, so that there is no horizon to
be known. (Shamir and Zhang, ICML 2013, section 4.)
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any

import torch
from torch import Tensor

from pontryagin.affine.precision import wide
from pontryagin.errors import ProblemError
from pontryagin.optim.state import AverageState, States
from pontryagin.trajectory.local import local_part

Known = Iterable[tuple[Tensor, AverageState]]
"""Parameters with their averages."""
AVERAGING = 8.0
"""eta: a window of the last ninth. With 4 or 16 the ends of benchmarks.defaults are no better."""


def known_of(group: dict[str, Any], states: States) -> Known:
    """The parameters of a group that have been trained, with their averages."""
    return [(parameter, AverageState(states[parameter]))
            for parameter in group["params"] if states.get(parameter)]


class Averages:
    """Takes controls into their averages, and shows these in the controls' place.

    A control that something else has written to since, such as model.load_state_dict, begins a new average.
    """

    def __init__(self) -> None:
        self._written: dict[int, tuple[int, int, int]] = {}

    def remember(self, found: Known, step: int, eta: float) -> None:
        """Take the controls after the k-th step into their averages; one begins where it has none."""
        averages, controls = [], []
        for parameter, state in found:
            self._written[id(parameter)] = _mark(parameter)
            mean, part = state.entries.get("mean_control"), local_part(parameter)
            dtype = wide(part.dtype)
            if mean is None or mean.dtype != dtype:
                state.mean_control = part.detach().to(dtype, copy=True)
            else:
                averages.append(mean)
                controls.append(part if part.dtype == dtype else part.to(dtype))
        if averages:
            torch._foreach_lerp_(averages, controls, (eta + 1) / (step + eta))

    def show(self, found: Known) -> None:
        """Put the averages in the place of the controls, which are kept."""
        for parameter, state in found:
            self.begin_anew(parameter, state)
            if "mean_control" in state and "last_control" not in state:
                state.last_control = local_part(parameter).detach().clone()
                local_part(parameter).copy_(state.mean_control)
            self._written[id(parameter)] = _mark(parameter)

    def hide(self, found: Known) -> None:
        """The controls again, bit by bit."""
        for parameter, state in found:
            if not _is_shown(parameter, state):  # else it may have been moved, or changed its type
                self.begin_anew(parameter, state)
            if "last_control" in state:
                local_part(parameter).copy_(state.entries.pop("last_control"))
            self._written[id(parameter)] = _mark(parameter)

    def begin_anew(self, parameter: Tensor, state: AverageState) -> None:
        """Forget the average of a control that has been replaced."""
        if self._written.get(id(parameter), _mark(parameter)) != _mark(parameter):
            for name in ("mean_control", "last_control"):
                state.entries.pop(name, None)


class Averaged(torch.optim.Optimizer):
    """Any torch optimizer with the averages that EMSA keeps.

        optimizer = Averaged(torch.optim.AdamW(model.parameters(), 1e-3))
        ...                   # train as before: schedulers, scalers and closures see an optimizer
        optimizer.eval()      # the averages are in the model, to be evaluated or saved
        optimizer.train()     # and the controls again, bit by bit, before the next step

    optimizer: whose parameters are averaged, after each of its steps; groups, state and hooks stay its own.
    What else writes to a parameter between two steps, a clamp as much as model.load_state_dict, begins a new
    average of it. averaging: eta, so that about the last 1 / (eta + 1) of all steps count. state_dict() holds
    the optimizer's and the averages. A copy or pickle has an optimizer and parameters of its own. Raises
    ProblemError for a wrong eta, for what is no optimizer or no such state, and for a step while the averages
    are shown.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, averaging: float = AVERAGING) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ProblemError(f"Averaged: expected a torch optimizer, found {type(optimizer).__name__}")
        if not (isinstance(averaging, int | float) and 0 <= averaging < inf):
            raise ProblemError(f"Averaged: expected averaging >= 0 and finite, found {averaging!r}")
        self.optimizer, self.averaging, self.steps, self.is_shown = optimizer, averaging, 0, False
        self._averages, self._states = Averages(), defaultdict[Tensor, dict[str, Tensor]](dict)
        super().__init__(optimizer.param_groups, optimizer.defaults)
        self._is_made = True

    def __getattribute__(self, name: str) -> Any:
        """Groups and state are always those of the optimizer inside, whatever it has loaded since."""
        if name in ("param_groups", "state") and "_is_made" in object.__getattribute__(self, "__dict__"):
            return getattr(self.optimizer, name)
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
        for parameter, state in self._known():
            self._averages.begin_anew(parameter, state)
        result = self.optimizer.step(closure)
        self.steps += 1
        with torch.no_grad():
            self._averages.remember(self._known(), self.steps, self.averaging)
        return result

    @torch.no_grad()
    def eval(self) -> None:
        """Show the averages. Again: nothing."""
        if not self.is_shown:
            self._averages.show(self._known())
        self.is_shown = True

    @torch.no_grad()
    def train(self) -> None:
        """Hide them. Again: nothing."""
        if self.is_shown:
            self._averages.hide(self._known())
        self.is_shown = False

    def zero_grad(self, set_to_none: bool = True) -> None:
        """The optimizer's."""
        self.optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's, the averages in the order of its parameters, and their number."""
        super().state_dict()  # its hooks
        return {"optimizer": self.optimizer.state_dict(), **self._own()}

    def _own(self) -> dict[str, Any]:
        return {"steps": self.steps, "is_shown": self.is_shown,
                "averages": [dict(state.entries) for _, state in self._known()]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from such a state. Averages that are shown leave the model before."""
        self._check(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.train()
        self._take(state_dict)

    def _check(self, saved: Any) -> None:
        keys = {"optimizer", *self._own()}
        if not isinstance(saved, Mapping) or not keys <= saved.keys():
            found = ", ".join(map(str, saved)) if isinstance(saved, Mapping) else type(saved).__name__
            raise ProblemError(f"Averaged: expected what state_dict() gives, with {', '.join(sorted(keys))}, "
                               f"found {found}; a state of the optimizer inside is loaded by .optimizer")
        if not isinstance(saved["steps"], int) or saved["steps"] < 0:
            raise ProblemError(f"Averaged: expected a number of steps >= 0, found {saved['steps']!r}")
        known, averages = list(self._known()), saved["averages"]
        if len(averages) != len(known):
            raise ProblemError(f"Averaged: the saved state has averages of {len(averages)} parameters, this "
                               f"optimizer has {len(known)}")
        for number, ((parameter, _), entries) in enumerate(zip(known, averages, strict=True)):
            shapes = {tuple(value.shape) for value in entries.values()} - {tuple(parameter.shape)}
            if shapes:
                raise ProblemError(f"Averaged: the saved averages of parameter {number} have shape "
                                   f"{shapes.pop()}, expected {tuple(parameter.shape)}")

    def _take(self, saved: Mapping[str, Any]) -> None:
        self.steps, self.is_shown, self._averages = saved["steps"], saved["is_shown"], Averages()
        for (parameter, state), entries in zip(self._known(), saved["averages"], strict=True):
            state.entries.clear()
            state.entries |= {name: value.to(parameter.device, copy=True) for name, value in entries.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer, "averaging": self.averaging, **self._own()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.optimizer, self.averaging = state["optimizer"], state["averaging"]
        self._states = defaultdict[Tensor, dict[str, Tensor]](dict)
        super().__setstate__({"defaults": self.optimizer.defaults})
        self._is_made = True
        self._take(state)

    def _known(self) -> Known:
        return ((parameter, AverageState(self._states[parameter]))
                for group in self.optimizer.param_groups for parameter in group["params"])


def _is_shown(parameter: Tensor, state: AverageState) -> bool:
    """Whether a parameter holds its average, wherever and in whatever type it lies by now."""
    if "last_control" not in state or "mean_control" not in state:
        return False
    part = local_part(parameter)
    shown = state.mean_control.to(state.last_control.dtype).to(part)
    return shown.shape == part.shape and torch.equal(shown, part)


def _mark(parameter: Tensor) -> tuple[int, int, int]:
    """Changes with every write to a parameter, or to the part of it that lies here, which counts by itself,
    and with its storage."""
    part = local_part(parameter)
    return parameter._version, part._version, part.data_ptr()
