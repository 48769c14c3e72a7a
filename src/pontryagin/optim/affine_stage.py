"""One affine stage of a module: how the moments of its inputs enter its running state."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from pontryagin.affine.metric import Factor, factorize, first_block, nystrom
from pontryagin.affine.moments import InputMoments, Moments
from pontryagin.affine.precision import extended, wide
from pontryagin.affine.variances import lag
from pontryagin.distributed.reductions import mean_over_processes, sum_over_processes
from pontryagin.optim.budget import propagation_flops, refresh_flops
from pontryagin.optim.capture import CapturedStage
from pontryagin.optim.polar_step import ROWS

_FRESH = 0.15
"""Least weight of a new batch in the running moments."""
_EXACT = 2
"""The metric is exact up to so many times the rank: below that, a subspace saves little."""

RUNNING = ("square", "square_weight", "long_square", "velocity_weight", "size", "size_weight", "long_size",
           "peak")
"""The entries of a stage's state that the steps renew, beside the momentum."""
_BY_OUTPUT = ("square", "long_square")
STAGE_ENTRIES = ("mean", "moment", "basis", "values", "tail", "refreshes", "by_operator", *RUNNING,
                 "velocity", "bias_velocity")


class AffineStage:
    """The inputs' side of one stage. All that lasts is in the optimizer's state of its weight, as tensors.

    rank: of the metric; below the number of inputs the second moment is known by its leading subspace alone.
    """

    def __init__(self, captured: CapturedStage, rank: int, rows: int | None) -> None:
        self.captured, self.rows, self.name = captured, rows, captured.name
        self.groups, self.outputs, self.inputs = captured.layer.matrix(captured.weight.detach()).shape
        self.rank = self.inputs if self.inputs <= _EXACT * rank else rank

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

    @property
    def _may_grow(self) -> bool:
        """Frequencies and normalized inputs do not."""
        return not self.captured.layer.one_hot and self.captured.weight.ndim > 1

    def arm(self, armed: bool, glancing: bool, state: dict[str, Tensor]) -> None:
        """Whether to look or glance at the next batch; a stage in a subspace says at what, before the first
        rows come."""
        self.captured.look(armed, glancing and self._may_grow)
        moments = self.captured.moments
        if armed and self.rank < self.inputs and isinstance(moments, InputMoments):
            moments.block = state["basis"] if "basis" in state else self._first_block()

    def refresh(self, state: dict[str, Tensor], has_bias: bool) -> None:
        """Take in the moments of the last batch and factorize; nothing happens without new moments.

        Moments that are not finite are left out: the gradients of their batch are not finite either, or a
        state overflowed in a half-precision pass that had no say in the loss.
        """
        moments = mean_over_processes(self.captured.take(), self._zeros)
        if moments is None or not moments.is_finite():
            return
        moments = self._about(moments, has_bias)
        if not has_moments(state):
            positions = sum_over_processes(self.captured.positions, moments.mean.device)
            self._reset(state, moments, torch.tensor(self._are_many_rows(positions)))
        state["refreshes"] += 1
        weight = max(_FRESH, 1 / state["refreshes"].item())
        if has_bias:  # the spread of the batches' means is variance too
            moments.add_outer(moments.mean - state["mean"], 1 - weight)
        if not self.captured.layer.one_hot:
            self.grow(state, lag(Factor.of(state).trace, moments.trace))
        state["mean"].lerp_(moments.mean, weight)
        if self.captured.layer.one_hot:
            state["moment"].lerp_(moments.product, weight)
        elif self.rank == self.inputs:
            state["moment"].lerp_(moments.product, weight)
            self._keep(state, factorize(state["moment"]))
        else:
            self._keep(state, nystrom(_blend(state, moments, weight)))

    def grow(self, state: dict[str, Tensor], factor: Tensor) -> None:
        """Multiply the known second moment, in place. factor: (group)."""
        for name in ("moment", "values", "tail"):
            if name in state:
                state[name].mul_(factor.view(-1, *[1] * (state[name].ndim - 1)))

    def begin(self, state: dict[str, Tensor], has_bias: bool) -> None:
        """Momentum and rho, where there are none."""
        mean, shapes = state["mean"], self.shapes()
        for name in RUNNING:
            if name not in state:
                state[name] = mean.new_zeros(shapes[name], dtype=self.dtype_of(name))
        if "velocity" not in state:
            state["velocity"] = mean.new_zeros(self.groups, self.outputs, self.inputs)
        if has_bias and "bias_velocity" not in state:
            state["bias_velocity"] = mean.new_zeros(self.groups, self.outputs)

    def conform(self, state: dict[str, Tensor]) -> None:
        """The dtype and device of the weight, should these have changed since the last step."""
        weight = self.captured.weight
        if state["mean"].dtype == self._dtype and state["mean"].device == weight.device:
            return
        for name in STAGE_ENTRIES:
            if name in state and state[name].ndim:
                state[name] = state[name].to(weight.device, self.dtype_of(name))

    def shapes(self) -> dict[str, torch.Size]:
        """Of all entries that its state may have."""
        groups, outputs, inputs, rank = self.groups, self.outputs, self.inputs, self.rank
        moment = (groups, inputs) if self.captured.layer.one_hot else (groups, inputs, inputs)
        found = {"mean": (groups, inputs), "moment": moment, "basis": (groups, inputs, rank),
                 "values": (groups, rank),
                 "tail": (groups,), "refreshes": (), "by_operator": (), "velocity": (groups, outputs, inputs),
                 "bias_velocity": (groups, outputs)}
        found |= {name: (groups, outputs) if name in _BY_OUTPUT else (groups,) for name in RUNNING}
        return {name: torch.Size(shape) for name, shape in found.items()}

    def dtype_of(self, name: str) -> torch.dtype:
        """Of an entry of its state."""
        if name in RUNNING and name != "velocity_weight":
            return extended(self.captured.weight)
        return {"refreshes": torch.float32, "by_operator": torch.bool}.get(name, self._dtype)

    def needed(self) -> set[str]:
        """The entries of a state that has any of them."""
        one_hot = self.captured.layer.one_hot
        exact = {"moment"} if one_hot or self.rank == self.inputs else set()
        metric = set() if one_hot else {"basis", "values", "tail"}
        return {"mean", "refreshes", "by_operator", "velocity", *RUNNING} | exact | metric

    def initialize(self, state: dict[str, Tensor], has_bias: bool) -> None:
        """All entries of the state, for those who fill them in place; the first moments overwrite them."""
        if "refreshes" in state:
            return
        moments = self._zeros()
        self._reset(state, moments, torch.tensor(False))
        self.begin(state, has_bias)

    def _about(self, moments: Moments, has_bias: bool) -> Moments:
        """Centred at the mean, which a bias absorbs, or at 0."""
        moments = moments.to(self._dtype)
        if not has_bias:
            moments.add_outer(moments.mean, 1.0)
            moments.mean = torch.zeros_like(moments.mean)
        return moments

    def _reset(self, state: dict[str, Tensor], moments: Moments, by_operator: Tensor) -> None:
        """Entries of the right shapes for the first moments."""
        state.update({"mean": moments.mean.clone(), "refreshes": torch.zeros((), dtype=torch.float32),
                      "by_operator": by_operator})
        if self.rank == self.inputs or self.captured.layer.one_hot:
            state["moment"] = moments.product.clone()
        if not self.captured.layer.one_hot:
            mean = moments.mean
            state.update(basis=mean.new_zeros(self.groups, self.inputs, self.rank),
                         values=mean.new_zeros(self.groups, self.rank), tail=mean.new_zeros(self.groups))

    def _keep(self, state: dict[str, Tensor], factor: Factor) -> None:
        """In place: banks hold the same tensors. Less variance than the rounding of the mean is no
        information."""
        rounding = torch.finfo(self._dtype).eps * state["mean"].square().mean(1)
        state["basis"].copy_(factor.basis)
        torch.maximum(factor.values, rounding[:, None], out=state["values"])
        torch.maximum(factor.tail, rounding, out=state["tail"])

    def _zeros(self) -> Moments:
        mean = self.captured.weight.new_zeros(self.groups, self.inputs, dtype=self._dtype)
        if self.captured.layer.one_hot:
            return Moments(mean, mean.clone(), mean[:, 0].clone())
        block = None if self.rank == self.inputs else self._block()
        return Moments(mean, mean.new_zeros(self.groups, self.inputs, self.rank), mean[:, 0].clone(), block)

    def _block(self) -> Tensor:
        moments = self.captured.moments
        return moments.block if isinstance(moments,
                                           InputMoments) and moments.block is not None else self._first_block()

    def _first_block(self) -> Tensor:
        return first_block(self.groups, self.inputs, self.rank,
                           self.captured.weight.new_zeros((), dtype=self._dtype))

    @property
    def _dtype(self) -> torch.dtype:
        return wide(self.captured.weight.dtype)

    def _are_many_rows(self, positions: int) -> bool:
        """Whether a batch has enough rows for a step bounded in the operator norm."""
        return self.captured.layer.is_dense and positions >= ROWS * max(self.inputs, self.outputs)


def _blend(state: dict[str, Tensor], moments: Moments, weight: float) -> Moments:
    """(1 - weight) A + weight A_new times the block of the new moments, with A in the form of a Factor."""
    assert moments.block is not None
    basis, values, tail, block = state["basis"], state["values"], state["tail"], moments.block
    if weight == 1:
        return moments
    old = basis @ ((values - tail[:, None]).unsqueeze(2) * (basis.mT @ block)) + tail[:, None, None] * block
    trace = values.sum(1) + tail * (basis.shape[1] - basis.shape[2])
    return Moments(moments.mean, torch.lerp(old, moments.product, weight),
                   torch.lerp(trace, moments.trace, weight), block)


def has_moments(state: dict[str, Tensor]) -> bool:
    """Whether any inputs have entered the state."""
    return "refreshes" in state and state["refreshes"].item() > 0
