"""One affine stage of a module with its running state: moments, metric, rho, momentum."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.optim.budget import propagation_flops, refresh_flops
from pontryagin.optim.capture import CapturedStage
from pontryagin.optim.communication import Moments, mean_over_processes, sum_over_processes
from pontryagin.optim.metric import Factor, factorize
from pontryagin.optim.operator_step import ROWS, operator_step
from pontryagin.optim.precision import wide
from pontryagin.optim.stage_step import argmax, normalized, output_change, remember

_FRESH = 0.15
"""Least weight of a new batch in the running moments."""
_EXACT = 4
"""The metric is exact up to so many times the rank: below that, a subspace saves nothing."""

_EARLY, _SELDOM = 20, 4
"""Rho is renewed in each of the first steps, then in every fourth with the memory of four: it costs a product with A_c."""

class AffineStage:
    """The maximization of one stage. All that lasts is in the optimizer's state of its weight, as tensors."""

    def __init__(self, captured: CapturedStage, rank: int, rows: int | None) -> None:
        self.captured, self.rows, self.name = captured, rows, captured.name
        self.groups, self.outputs, self.inputs = captured.layer.matrix(captured.weight.detach()).shape
        self.rank = self.inputs if self.inputs <= _EXACT * rank else rank
        self._factor: Factor | None = None

    def parameters(self, members: Collection[int]) -> tuple[nn.Parameter | None, nn.Parameter | None]:
        """Weight and bias as far as they are trained and among these parameters; no weight, no stage."""
        weight, bias = self.captured.weight, self.captured.bias
        if not weight.requires_grad or id(weight) not in members:
            return None, None
        return weight, bias if bias is not None and bias.requires_grad and id(bias) in members else None

    @property
    def propagation_work(self) -> float:
        """Flops of the forward and backward pass of the last batch."""
        if self.captured.layer.one_hot or self.inputs == 1:
            return 0.0
        return self.groups * propagation_flops(self.captured.positions, self.outputs, self.inputs)

    @property
    def refresh_work(self) -> float:
        """Flops of one refresh."""
        if self.captured.layer.one_hot or self.inputs == 1:
            return 0.0
        positions = self.captured.positions
        rows = positions if self.rows is None else min(positions, self.captured.calls * self.rows)
        return refresh_flops(rows, self.inputs, self.rank, self.groups)

    def refresh(self, state: dict[str, Tensor], has_bias: bool) -> None:
        """Take in the moments of the last batch and factorize; nothing happens without new moments.

        Moments that are not finite are left out: the gradients of their batch are not finite either, or a state
        overflowed in a half-precision pass that had no say in the loss.
        """
        taken = mean_over_processes(self._take(), self._zeros)
        if taken is None:
            return
        mean, moment = taken
        if not (mean.isfinite().all() and torch.linalg.vector_norm(moment, float("inf")).isfinite()):
            return
        if not has_bias:
            if moment.ndim == 3:
                moment.baddbmm_(mean.unsqueeze(2), mean.unsqueeze(1))
            mean = torch.zeros_like(mean)
        known = has_moments(state)
        if not known:
            positions = sum_over_processes(self.captured.positions, mean.device)
            state.update({"mean": mean, "moment": moment, "refreshes": torch.zeros((), dtype=torch.float32),
                          "by_operator": torch.tensor(self._are_many_rows(positions))})
        state["refreshes"] += 1
        weight = max(_FRESH, 1 / state["refreshes"].item())
        shift = mean - state["mean"]
        state["mean"].lerp_(mean, weight)
        state["moment"].lerp_(moment, weight)
        if moment.ndim == 3:
            if has_bias:  # the spread of the batches' means is variance too
                state["moment"].baddbmm_(shift.unsqueeze(2), shift.unsqueeze(1), alpha=weight * (1 - weight))
            self._factorize(state, state["basis"] if known else None)

    def initialize(self, state: dict[str, Tensor], bias: nn.Parameter | None) -> None:
        """All entries of the state, for those who fill them in place; the first moments overwrite them."""
        if state:
            return
        mean, moment = self._zeros()
        state.update({"mean": mean, "moment": moment, "refreshes": torch.zeros((), dtype=torch.float32),
                      "by_operator": torch.tensor(False)})
        if moment.ndim == 3:
            self._factorize(state, None)
        change = moment.new_zeros(self.groups, self.outputs, self.inputs)
        _begin(state, change, None if bias is None else change[..., 0])

    def _factorize(self, state: dict[str, Tensor], previous: Tensor | None) -> None:
        rounding = torch.finfo(self._dtype).eps * state["mean"].square().mean(1)  # less variance than that is no information
        factor = factorize(state["moment"], self.rank, previous)
        state.update(basis=factor.basis, values=factor.values + rounding[:, None], tail=factor.tail + rounding)

    def _take(self) -> Moments | None:
        taken = self.captured.take()
        return None if taken is None else (taken[0].to(self._dtype), taken[1].to(self._dtype))

    def _zeros(self) -> Moments:
        mean = self.captured.weight.new_zeros(self.groups, self.inputs, dtype=self._dtype)
        return mean, mean.clone() if self.captured.layer.one_hot else mean.new_zeros(*mean.shape, self.inputs)

    @property
    def _dtype(self) -> torch.dtype:
        return wide(self.captured.weight.dtype)

    def step(self, state: dict[str, Tensor], bias: nn.Parameter | None, group: dict[str, Any], bias_lr: float
             ) -> list[tuple[Tensor, Tensor]] | None:
        """The changes of weight and bias; None when the moments of the inputs are not known."""
        if not has_moments(state):
            return None
        layer, weight = self.captured.layer, self.captured.weight
        gradient = -layer.matrix(weight.grad).to(self._dtype)  # type: ignore[arg-type]
        bias_gradient = None
        if bias is not None:
            found = bias.grad if bias.grad is not None else torch.zeros_like(bias)
            bias_gradient = -found.to(self._dtype).reshape(self.groups, self.outputs)
        change, bias_change = self._direction(state, gradient, bias_gradient, group)
        moves: list[tuple[Tensor, Tensor]] = [(weight, layer.shaped(change * group["lr"]))]
        if bias is not None and bias_change is not None:
            moves.append((bias, (bias_change * bias_lr).reshape(bias.shape)))
        return moves

    def _direction(self, state: dict[str, Tensor], gradient: Tensor, bias_gradient: Tensor | None, group: dict[str, Any]
                   ) -> tuple[Tensor, Tensor | None]:
        """(dW, db) for lr = 1."""
        _begin(state, gradient, bias_gradient)
        metric = self._metric(state)
        if state["by_operator"] and isinstance(metric, Factor):
            return operator_step(state, gradient, bias_gradient, metric, group["damping"], group["power"])
        change, bias_change = argmax(gradient, bias_gradient, state["mean"], metric, group["damping"], group["power"])
        early = group["steps"] < _EARLY
        if early or group["steps"] % _SELDOM == 0 or not state["square_weight"]:
            square = output_change(change, bias_gradient, metric)
            remember(state, square, group["memory"] if early else group["memory"] ** _SELDOM)
        return normalized(state, change, bias_change, group["momentum"])

    def _metric(self, state: dict[str, Tensor]) -> Factor | Tensor:
        """Of the last refresh, kept with its powers while the state's tensors are the same."""
        if self.captured.layer.one_hot:
            return state["moment"]
        if self._factor is None or self._factor.basis is not state["basis"]:
            self._factor = Factor(state["basis"], state["values"], state["tail"])
        return self._factor

    def _are_many_rows(self, positions: int) -> bool:
        """Whether a batch has enough rows for a step bounded in the operator norm."""
        return self.captured.layer.kind == "Linear" and positions >= ROWS * max(self.inputs, self.outputs)


def has_moments(state: dict[str, Tensor]) -> bool:
    """Whether any inputs have entered the state."""
    return "refreshes" in state and bool(state["refreshes"] > 0)


def _begin(state: dict[str, Tensor], gradient: Tensor, bias_gradient: Tensor | None) -> None:
    if "velocity" not in state:
        state["velocity"] = torch.zeros_like(gradient)
        state["velocity_weight"] = torch.zeros((), dtype=gradient.dtype)
        state["square"], state["square_weight"] = torch.zeros_like(gradient[..., 0]), state["velocity_weight"].clone()
    if bias_gradient is not None and "bias_velocity" not in state:
        state["bias_velocity"] = torch.zeros_like(bias_gradient)
