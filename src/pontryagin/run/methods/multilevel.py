"""E-MSA with the depth of a residual network as a variable: few long steps first, then more, shorter ones."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.affine import PenalizedArgmax, form_of, stage_moments
from pontryagin.run.errors import ExperimentError
from pontryagin.run.methods.emsa import emsa
from pontryagin.run.methods.method import Method, MethodStyle
from pontryagin.run.models import ResidualStep
from pontryagin.run.objective import Objective
from pontryagin.run.trainer import Batch, OptimizerTrainer, StepRecord

_DAMPING = 1e-2
"""Of the fit to one batch, relative to the mean of the moment's diagonal."""


class Multilevel:
    """The method emsa on every `ratio`-th residual step, so many times as long; where the rate has fallen to
    `share` of its first every step of that network becomes two, and again at each half of that rate, until
    all steps are there. The first half keeps the weights, the second gets those by which the states of the
    batch are what they were, by least squares (as `problem.refine(keep="states")`).

    A shallow network is made of the steps of the whole one, the first of every run of `ratio`; at the end of
    a run may be fewer. The metric and the momentum begin anew with each depth. Whatever the depth, `model`
    is the whole network, of a step's weights in all that stand for it. Raises ExperimentError without
    residual steps, and where there are too few for the ratio.
    """

    def __init__(self, model: nn.Module, objective: Objective, rate: float, ratio: int, share: float) -> None:
        steps = [child for child in model if isinstance(child, ResidualStep)] if isinstance(
            model, nn.Sequential) else []
        if ratio < 2 or ratio & (ratio - 1) or len(steps) < ratio:
            raise ExperimentError(f"emsa-multilevel: expected a ratio of 2, 4, 8 ... and a network with at "
                                  f"least as many residual steps (residual-cnn), found a ratio of {ratio} "
                                  f"and {len(steps)} steps")
        if not 0 < share < 1:
            raise ExperimentError(f"emsa-multilevel: expected a share between 0 and 1, found {share}")
        self._whole, self._steps, self.objective, self.rate = model, steps, objective, rate
        self.first, self.share, self.ratio, self._wanted, self._factor = ratio, share, ratio, ratio, 1.0
        self.inner = self._trainer()

    @property
    def model(self) -> nn.Module:
        """The whole network."""
        self._prolong()
        return self._whole

    def evaluated(self) -> AbstractContextManager[nn.Module]:
        """The whole network, with the averages of this depth."""
        return self._averaged()

    def step(self, batch: Batch) -> StepRecord:
        """One iteration of the network of the present depth."""
        while self.ratio > self._wanted:
            self._halve(batch[0])
        return self.inner.step(batch)

    def set_factor(self, factor: float) -> None:
        """The schedule, which says when steps are halved too: by the next step."""
        self._wanted = self.first
        while self._wanted > 1 and factor <= self.share * self._wanted / self.first:
            self._wanted //= 2
        self._factor = factor
        self.inner.set_factor(factor)

    def state_dict(self) -> dict[str, Any]:
        """The depth and the optimizer's state."""
        return {"ratio": self.ratio, "optimizer": self.inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._at(int(state["ratio"]))
        self.inner.load_state_dict(state["optimizer"])

    def _at(self, ratio: int) -> None:
        self.inner.optimizer.detach()  # type: ignore[attr-defined]
        self.ratio = ratio
        self.inner = self._trainer()
        self.inner.set_factor(self._factor)

    @torch.no_grad()
    def _halve(self, inputs: Tensor) -> None:
        runs, half = {run[0]: run for run in self._runs()}, self.ratio // 2
        x = y = inputs  # of the network as it is, and of the one with halved steps
        for child in self._whole.children():
            if not isinstance(child, ResidualStep):
                x, y = child(x), child(y)
            elif child in runs:
                run = runs[child]
                before, first = child.conv(x), sum(step.step_size for step in run[:half])
                x = x + sum(step.step_size for step in run) * torch.tanh(before)
                y = y + first * torch.tanh(child.conv(y))
                if len(run) > half:
                    second = run[half].conv
                    second.load_state_dict(child.conv.state_dict())
                    _fit(second, y, before)
                    y = y + sum(step.step_size for step in run[half:]) * torch.tanh(second(y))
        self._at(half)

    def _trainer(self) -> OptimizerTrainer:
        """Of the network of the present depth, whose modules are the whole one's."""
        first = {run[0]: ResidualStep(1, sum(step.step_size for step in run), run[0].conv)
                 for run in self._runs()}
        stages = [first.get(child, child) if isinstance(child, ResidualStep) else child
                  for child in self._whole.children()
                  if not isinstance(child, ResidualStep) or child in first]
        network = nn.Sequential(*stages)
        return emsa(network, self.objective, self.rate)

    def _runs(self) -> Iterator[list[ResidualStep]]:
        for n in range(0, len(self._steps), self.ratio):
            yield self._steps[n:n + self.ratio]

    @torch.no_grad()
    def _prolong(self) -> None:
        for run in self._runs():
            for step in run[1:]:
                step.load_state_dict(run[0].state_dict())

    @contextmanager
    def _averaged(self) -> Iterator[nn.Module]:
        with self.inner.evaluated():
            self._prolong()
            yield self._whole


def _fit(conv: nn.Conv2d, states: Tensor, outputs: Tensor) -> None:
    """The weights of a convolution that are nearest to these outputs."""
    form = form_of(conv, tuple((name, value.shape) for name, value in conv.named_parameters()))
    assert form is not None
    moments = stage_moments(form, [states], [outputs - conv(states)])
    change = PenalizedArgmax(form, moments, _DAMPING, 0.0).solve(
        moments.gradient, moments.bias_gradient, 1.0, states.new_zeros(1))
    vector = form.control(*change)[0]
    for value, part in zip(conv.parameters(), vector.split([one.numel() for one in conv.parameters()]),
                           strict=True):
        value.add_(part.view_as(value))


def multilevel(model: nn.Module, objective: Objective, rate: float, *, ratio: int = 4,
               share: float = 0.1) -> Multilevel:
    """ratio: of the steps of the whole network to those at first, 2, 4, 8 ...; share: of the first rate at
    which steps are halved for the first time."""
    return Multilevel(model, objective, rate, ratio, share)


EMSA_MULTILEVEL = Method("emsa-multilevel", multilevel, (0.03,),
                         MethodStyle("multilevel E-MSA", "#332288", "-", 1.7),
                         leaves=frozenset({"clip_norm", "autocast"}))
