"""One affine stage of a module with its running state: moments, metric, rho, momentum."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.optim.budget import propagation_flops, refresh_flops
from pontryagin.optim.capture import CapturedStage
from pontryagin.optim.communication import mean_over_processes
from pontryagin.optim.metric import Factor, factorize
from pontryagin.optim.stage_step import Settings, argmax, normalized, output_change

_FRESH = 0.15
"""Least weight of a new batch in the running moments."""
_EXACT = 4
"""The metric is exact up to so many times the rank: below that, a subspace saves nothing."""


class AffineStage:
    """The maximization of one stage. All that lasts is in the optimizer's state of its weight, as tensors."""

    def __init__(self, captured: CapturedStage, rank: int, rows: int | None) -> None:
        self.captured, self.rows, self.name = captured, rows, captured.name
        self.groups, self.outputs, self.inputs = captured.layer.matrix(captured.weight.detach()).shape
        self.rank = self.inputs if self.inputs <= _EXACT * rank else rank

    def parameters(self, members: Collection[int]) -> tuple[nn.Parameter | None, nn.Parameter | None]:
        """Weight and bias as far as they are trained by a group with these parameters; no weight, no stage."""
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
        rows = min(self.captured.positions, self.rows or self.captured.positions)
        return refresh_flops(rows, self.inputs, self.rank, self.groups)

    def refresh(self, state: dict[str, Tensor], has_bias: bool) -> None:
        """Take in the moments of the last batch and factorize; nothing happens without new moments.

        Moments that are not finite are left out: the gradients of their batch are not finite either, or a state
        overflowed in a half-precision pass that had no say in the loss.
        """
        taken = self.captured.moments.take()
        if taken is None:
            return
        mean, moment = mean_over_processes(*taken)
        if not (mean.isfinite().all() and moment.isfinite().all()):
            return
        if not has_bias:
            if moment.ndim == 3:
                moment = moment + mean.unsqueeze(2) * mean.unsqueeze(1)
            mean = torch.zeros_like(mean)
        if "moment" not in state:
            state.update({"mean": mean, "moment": moment, "refreshes": torch.zeros((), dtype=torch.float32)})
        state["refreshes"] += 1
        weight = max(_FRESH, 1 / state["refreshes"].item())
        shift = mean - state["mean"]
        state["mean"].lerp_(mean, weight)
        state["moment"].lerp_(moment, weight)
        if moment.ndim == 3:
            if has_bias:  # the spread of the batches' means is variance too
                state["moment"].add_(shift.unsqueeze(2) * shift.unsqueeze(1), alpha=weight * (1 - weight))
            self._factorize(state)

    def _factorize(self, state: dict[str, Tensor]) -> None:
        factor = factorize(state["moment"], self.rank, state.get("basis"))
        state.update(basis=factor.basis, values=factor.values, tail=factor.tail)

    def step(self, state: dict[str, Tensor], bias: nn.Parameter | None, group: dict[str, Any]
             ) -> list[tuple[Tensor, Tensor]] | None:
        """The changes of weight and bias; None when the inputs have never been seen."""
        if "moment" not in state:
            return None
        layer, weight = self.captured.layer, self.captured.weight
        wide = state["moment"].dtype
        gradient = -layer.matrix(weight.grad).to(wide)  # type: ignore[arg-type]
        bias_gradient = None
        if bias is not None:
            found = bias.grad if bias.grad is not None else torch.zeros_like(bias)
            bias_gradient = -found.to(wide).reshape(self.groups, self.outputs)
        metric = state["moment"] if layer.one_hot else Factor(state["basis"], state["values"], state["tail"])
        change, bias_change = argmax(gradient, bias_gradient, state["mean"], metric, group["damping"], group["power"])
        square = output_change(change, bias_gradient, metric)
        if "square" not in state:
            _begin(state, change, bias_change, square)
        settings = Settings(group["damping"], group["power"], group["momentum"], group["memory"])
        change, bias_change = normalized(state, change, bias_change, square, settings)
        moves: list[tuple[Tensor, Tensor]] = [(weight, layer.shaped(change * group["lr"]))]
        if bias is not None and bias_change is not None:
            moves.append((bias, (bias_change * group["lr"]).reshape(bias.shape)))
        return moves


def _begin(state: dict[str, Tensor], change: Tensor, bias_change: Tensor | None, square: Tensor) -> None:
    state.update(velocity=torch.zeros_like(change), square=torch.zeros_like(square),
                 square_weight=torch.zeros((), dtype=square.dtype))
    if bias_change is not None:
        state["bias_velocity"] = torch.zeros_like(bias_change)
