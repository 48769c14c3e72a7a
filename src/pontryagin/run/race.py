"""The race: methods in turn, an iteration each, from equal weights on equal batches."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from pontryagin.optim.snapshot import generator_states, seed_generators, set_generators
from pontryagin.problem import NonFiniteError
from pontryagin.run.environment import Stopwatch
from pontryagin.run.errors import ExperimentError
from pontryagin.run.methods import Method
from pontryagin.run.objective import Objective
from pontryagin.run.processes import present
from pontryagin.run.settings import SCHEDULES, Schedule
from pontryagin.run.trainer import PLAIN, Batch, OptimizerTrainer, Passes, StepRecord

SMOOTHING = 0.95
"""Memory of the running mean of batch losses that progress shows, bias-corrected: about twenty batches."""


class Contestant(Protocol):
    """What takes part in a race: a Run, or any solver of one's own."""

    @property
    def iteration(self) -> int:
        """How many have been done."""

    @property
    def ended(self) -> str:
        """Why there are no more, empty as long as there are."""


C = TypeVar("C", bound=Contestant)


def race(contestants: Sequence[C], turn: Callable[[C], bool]) -> bool:
    """An iteration each in turn until all have ended, so that a noisy machine is fair to all.

    turn: one iteration of a contestant (or its end), and whether the race goes on. Whose turn it is depends
    on the numbers of iterations alone, so that it is the same after a resume. Returns whether all have ended.
    """
    while active := [one for one in contestants if not one.ended]:
        if not turn(min(active, key=lambda one: one.iteration)):
            return False
    return True


@dataclass(frozen=True)
class Workload:
    """What a run is given to train. build: the network, from torch's global generator. batch: that of
    iteration 0, 1, ...; batch_size: samples in it, over all processes."""

    build: Callable[[], nn.Module]
    objective: Objective
    batch: Callable[[int], Batch]
    batch_size: int


class Run:
    """One method at one rate, from the weights and on the batches of one seed.

    The global generator is seeded before the network is built. horizon: iterations of the schedule, length:
    those until the end, by default as many. schedule: the factor of the rate by the share of the horizon that
    has been run. options: of the method. passes: what of them a method leaves (`Method.leaves`) is left out.
    clock: of the seconds, of the wall by default. title: for people, by default its name. random: the states
    of the global generators for this run alone (see `generators`); they are left as they were. notes:
    warnings that making it gave. best, waited: what patience has seen, and the evaluations since then.
    ended: complete, "not finite: ..." or what the caller sets.
    Raises ExperimentError.
    """

    def __init__(self, method: Method, seed: int, rate: float, workload: Workload, horizon: int, *,
                 length: int | None = None, schedule: Schedule = SCHEDULES["linear"],
                 options: Mapping[str, Any] | None = None, passes: Passes = PLAIN, title: str = "",
                 clock: Callable[[], float] = perf_counter) -> None:
        self.method, self.seed, self.rate, self.horizon = method, seed, rate, horizon
        self.length = horizon if length is None else min(length, horizon)
        self.name = f"{method.name}-seed{seed}"
        self.title = title or self.name
        before = generator_states()
        seed_generators(seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.trainer = method.trainer(workload.build(), workload.objective, rate, options)
        if present().size > 1 and not isinstance(self.trainer, OptimizerTrainer):
            raise ExperimentError(f"{method.name} is trained by one process alone: start it without torchrun")
        if isinstance(self.trainer, OptimizerTrainer):
            self.trainer.passes = replace(passes, clip_norm=None) if "clip_norm" in method.leaves else passes
        self.notes = [str(warning.message) for warning in caught]
        self.random = generator_states()
        set_generators(before)
        self.iteration, self.evaluations, self.ended = 0, 0, ""
        self.best: float | None = None
        self.waited = 0
        self.watch, self._mean = Stopwatch(clock), 0.0
        self._workload, self._factor = workload, schedule
        self._device = next(self.trainer.model.parameters()).device

    @property
    def smoothed_loss(self) -> float | None:
        """The running mean of batch losses."""
        return self._mean / (1 - SMOOTHING**self.iteration) if self.iteration else None

    @property
    def samples_per_second(self) -> float:
        """While it trains."""
        return self.iteration * self._workload.batch_size / self.watch.seconds if self.watch.seconds else 0.0

    @contextmanager
    def generators(self) -> Iterator[None]:
        """Its turn: the global random generators are this run's."""
        set_generators(self.random)
        try:
            yield
        finally:
            self.random = generator_states()

    def iterate(self) -> StepRecord | None:
        """One iteration, of which the method's step alone is timed; None when what is not finite ended the
        run in the place of it."""
        batch = self._workload.batch(self.iteration)
        self.trainer.set_factor(self._factor(self.iteration / self.horizon))
        self.watch.start()
        try:
            record = self.trainer.step(batch)
        except NonFiniteError as error:
            self.ended = f"not finite: {error}"
            return None
        finally:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            self.watch.pause()
        self.iteration += 1
        self.evaluations += record.evaluations
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * record.loss
        if self.iteration >= self.length:
            self.ended = "complete"
        return record

    def state_dict(self) -> dict[str, Any]:
        """All that the run goes on from, in tensors and plain types."""
        return {"method": self.method.name, "seed": self.seed, "rate": self.rate, "iteration": self.iteration,
                "evaluations": self.evaluations, "seconds": self.watch.seconds, "mean": self._mean,
                "ended": self.ended, "best": self.best, "waited": self.waited,
                "model": self.trainer.model.state_dict(), "trainer": self.trainer.state_dict(),
                "random": self.random}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there. Raises ExperimentError when it is not of such a run."""
        if not 0 <= state["iteration"] <= self.length:
            raise ExperimentError(f"{self.name}: the checkpoint is at iteration {state['iteration']}, the "
                                  f"run has {self.length}: it has been changed, or is of another run")
        self.trainer.model.load_state_dict(state["model"])
        self.trainer.load_state_dict(state["trainer"])
        self.random, self.ended, self._mean = state["random"], state["ended"], state["mean"]
        self.iteration, self.evaluations = state["iteration"], state["evaluations"]
        self.best, self.waited = state["best"], state["waited"]
        self.watch.seconds = state["seconds"]
