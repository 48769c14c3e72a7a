"""What a training asks of a method, and how a torch optimizer answers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pontryagin.problem import NonFiniteError, ProblemError
from pontryagin.run.errors import ExperimentError
from pontryagin.run.objective import Objective
from pontryagin.run.processes import mean, present, share_pass
from pontryagin.run.user_code import cause, kind_of

Batch = tuple[Any, Tensor]
"""Inputs (a tensor, or several in a dict or a tuple) and targets, the first axis of all the samples, on the
model's device."""


@dataclass(frozen=True)
class StepRecord:
    """One iteration. loss: mean over the batch, without regularizer, at the controls before the step.

    evaluations: passes of the batch through all stages, forward, with or without a backward pass. The rest,
    where a method has it: whether the last trial was accepted, its state penalty rho, the decrease of J that
    it predicted (mu_k), and how many trials were rejected.
    """

    loss: float
    evaluations: int = 1
    accepted: bool | None = None
    rho: float | None = None
    optimality_gap: float | None = None
    rejected: int | None = None


@dataclass(frozen=True)
class Passes:
    """How a batch is propagated and differentiated.

    autocast: the network in bfloat16, where torch's autocast takes it, the loss in float32. clip_norm: to
    which the gradient of all parameters together is shortened.
    """

    autocast: bool = False
    clip_norm: float | None = None


PLAIN = Passes()


def output_of(network: Callable[..., Any], inputs: Any) -> Tensor:
    """What a network gives for a batch: a tensor, or the logits of an output of Hugging Face. A dict of
    inputs is given by name. Raises ExperimentError for what it raises, and for another output."""
    try:
        found = network(**inputs) if isinstance(inputs, Mapping) else network(inputs)
    except (ProblemError, NonFiniteError, ExperimentError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ExperimentError(f"the network, called with {kind_of(inputs)}: {cause(error)}") from error
    output = found if isinstance(found, Tensor) else getattr(found, "logits", None)
    if not isinstance(output, Tensor) or not output.ndim:
        raise ExperimentError(f"the network returned {kind_of(found)}: expected a tensor (sample, ...), or "
                              "an object with such `logits`; return that part of it alone")
    return output


class Trainer(Protocol):
    """A method with the model that it trains.

    The training saves `model.state_dict()` itself and loads it before `load_state_dict`; the two together,
    with the states of the global random generators, are all that a method may depend on: it goes on
    bitwise from them. For evaluation, between steps, the model of `evaluated()` is called in eval mode
    without gradients, and set back to train mode.
    """

    @property
    def model(self) -> nn.Module:
        """The module whose parameters and buffers are the current controls after every step."""

    def evaluated(self) -> AbstractContextManager[nn.Module]:
        """The module with the method's result so far: to be evaluated and saved, not stepped from."""

    def step(self, batch: Batch) -> StepRecord:
        """One iteration. Raises NonFiniteError, the model as before, when loss or gradient is not finite."""

    def set_factor(self, factor: float) -> None:
        """Take the coming steps at `factor` times the initial rate: the schedule, from 1 towards 0."""

    def state_dict(self) -> dict[str, Any]:
        """What the method knows beside the model's own state: tensors and plain types, nested."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""


class Optimizer(Protocol):
    """What is asked of a torch optimizer: each as torch's."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...
    def zero_grad(self) -> None: ...
    def step(self) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


@runtime_checkable
class Averaging(Protocol):
    """An optimizer whose result is not what it steps from, such as EMSA and the schedule-free ones."""

    def eval(self) -> Any:
        """Put the result into the model."""

    def train(self) -> Any:
        """Put back what the next step starts from."""


class OptimizerTrainer:
    """Any torch optimizer: propagate, differentiate, step. Losses and gradients are means over the batches of
    all processes."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, objective: Objective) -> None:
        self._model, self.optimizer, self.objective = model, optimizer, objective
        self.passes = PLAIN

    @property
    def model(self) -> nn.Module:
        return self._model

    @contextmanager
    def evaluated(self) -> Iterator[nn.Module]:
        """The model; with the averages of an optimizer that has them."""
        if not isinstance(self.optimizer, Averaging):
            yield self._model
            return
        self.optimizer.eval()
        try:
            yield self._model
        finally:
            self.optimizer.train()

    def step(self, batch: Batch) -> StepRecord:
        inputs, targets = batch
        self.optimizer.zero_grad()
        loss = self.objective.mean(self._output(inputs, targets.device.type), targets)
        loss = loss * self._share(targets)
        loss.backward()
        share_pass(self._model)
        value = mean(loss.item())
        if not isfinite(value):
            raise NonFiniteError(f"the loss of the batch is {value}: nothing has been changed; lower the "
                                 "learning rate or look at the data")
        self._clip()
        try:
            self._move(value)
        except (OverflowError, RuntimeError) as error:  # "value cannot be converted ... without overflow"
            if "overflow" not in str(error) and not isinstance(error, OverflowError):
                raise
            raise NonFiniteError(f"the step: {error}: lower the learning rate or the method's options"
                                 ) from error
        return StepRecord(value)

    def _share(self, targets: Tensor) -> float:
        """Times the mean of this process, so that the mean over the processes is that over all targets that
        count."""
        communicator = present()
        if communicator.size == 1 or not self.objective.classifies:
            return 1.0
        own = self.objective.counted(targets).cpu()
        return float(own * communicator.size / communicator.sum(own.clone()).clamp_min(1e-300))

    def _output(self, inputs: Any, device: str) -> Tensor:
        if not self.passes.autocast:
            return output_of(self._model, inputs)
        with torch.autocast(device, torch.bfloat16):
            return output_of(self._model, inputs).float()

    def _clip(self) -> None:
        if self.passes.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self._model.parameters(), self.passes.clip_norm)
            if not norm.isfinite():
                raise NonFiniteError(f"the norm of the gradient is {norm.item()}: nothing has been changed; "
                                     "lower the learning rate or look at the data")

    def _move(self, loss: float) -> None:
        self.optimizer.step()

    def set_factor(self, factor: float) -> None:
        """Every group's rate is `factor` times the one that it began with."""
        for group in self.optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


class OwnSchedule(OptimizerTrainer):
    """A method that brings its own schedule and leaves the run's aside."""

    def set_factor(self, factor: float) -> None:
        """Nothing."""
