"""One affine stage of a module: how the moments of its inputs enter its state."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from pontryagin.affine import InputMoments, Moments
from pontryagin.affine.metric import first_block
from pontryagin.affine.precision import wide
from pontryagin.optim.certainty import is_polar, worth
from pontryagin.optim.mean_variance import CompiledProbe
from pontryagin.optim.own_units import First, has_units, units
from pontryagin.optim.schedule import DEVICE_LATENCY, propagation_flops, refresh_flops
from pontryagin.optim.state import Entries, Layout, StageState
from pontryagin.optim.whitening import WIDEST
from pontryagin.trajectory.captured_stage import CapturedStage
from pontryagin.trajectory.local import local_part

FRESH = 0.15
"""Least weight of a new batch in the running moments: about the last seven count."""
_EXACT = 2
"""The metric is exact up to so many times the rank: below that, a subspace saves little."""


class AffineStage:
    """The inputs' side of one stage. All that lasts is in the optimizer's state of its weight.

    rank: of the metric; below the number of inputs the second moment is known by its leading subspace alone.
    """

    def __init__(self, captured: CapturedStage, rank: int, rows: int | None) -> None:
        self.captured, self.rows, self.name = captured, rows, captured.name
        captured.probe = CompiledProbe()
        self.weight, self.map = captured.weight, captured.map
        self.groups, self.outputs, self.inputs = self.map.matrix(
            torch.empty(self.weight.shape, device="meta")).shape
        self.rank = self.inputs if self.inputs <= _EXACT * rank else rank

    @property
    def _dtype(self) -> torch.dtype:
        return wide(self.weight.dtype)

    def parameters(self, members: Collection[int]) -> tuple[nn.Parameter | None, nn.Parameter | None]:
        """Weight and bias as far as they are trained and among these parameters; no weight, no stage."""
        bias = self.captured.bias
        if not self.weight.requires_grad or id(self.weight) not in members:
            return None, None
        return self.weight, bias if bias is not None and bias.requires_grad and id(bias) in members else None

    @property
    def is_exact(self) -> bool:
        """Whether the second moment is known whole."""
        return self.rank == self.inputs

    @property
    def _is_free(self) -> bool:
        """Frequencies and single inputs cost next to nothing."""
        return self.map.one_hot or self.inputs == 1

    @property
    def propagation_work(self) -> float:
        """Flops of the forward and backward pass of the last batch."""
        flops = propagation_flops(self.captured.positions, self.outputs, self.inputs)
        return 0.0 if self._is_free else self.groups * flops

    @property
    def refresh_work(self) -> float:
        """Flops of one refresh."""
        positions = self.captured.positions
        rows = positions if self.rows is None else min(positions, self.captured.calls * self.rows)
        latency = 0.0 if self.weight.device.type == "cpu" else DEVICE_LATENCY
        work = refresh_flops(rows, self.inputs, self.rank, self.groups) + latency
        if self.is_whitened and not self._is_polar:
            work += refresh_flops(self.inputs, self.outputs, self.outputs, self.groups)
        return 0.0 if self._is_free else work

    @property
    def _is_polar(self) -> bool:
        """By the last batch."""
        rows = self.captured.positions / max(self.inputs, self.outputs)
        return is_polar(worth(rows, self.captured.rows_of_sample), self.map.is_dense)

    def layout(self) -> Layout:
        """Shapes and dtypes of all entries that its state may have."""
        return StageState.layout(self.weight, torch.Size((self.groups, self.outputs, self.inputs)), self.rank,
                                 self.map.one_hot)

    @property
    def is_whitened(self) -> bool:
        """Whether what its steps do to the outputs together is known (whitening.py)."""
        return 1 < self.outputs <= WIDEST and not self.map.one_hot

    @property
    def has_directions(self) -> bool:
        """Whether it is known what gradients have along directions of the inputs (directions.py)."""
        return self.inputs > 1 and self.outputs <= WIDEST and self.map.is_dense

    def arm(self, armed: bool, probing: bool, entries: Entries) -> None:
        """Whether to look at the next batch or to probe it (frequencies and normalized inputs do not grow); a
        stage in a subspace says at what, before the first rows come."""
        self.captured.look(armed, probing and not self.map.one_hot and self.weight.ndim > 1)
        moments = self.captured.moments
        if armed and not self.is_exact and isinstance(moments, InputMoments):
            moments.block = entries["basis"] if "basis" in entries else self._first_block()

    def entering(self, state: StageState, moments: Moments, has_bias: bool, first: First
                 ) -> tuple[Moments, float]:
        """The moments of the last batch as they enter the state, and the weight that they get; of the first
        ones the state gets entries."""
        moments = self._about(moments, has_bias)
        if not state.has_moments:
            rows, each = first.rows / max(self.inputs, self.outputs), self.captured.rows_of_sample
            self._reset(state, moments, worth(rows, each), first.rows / each)
            if self.is_exact and not self.map.one_hot and self.map.is_dense and has_units(
                    first, self.inputs) and not is_polar(state.rows.item(), True):
                state.input_unit.fill_(torch.nan)  # unlike 1, which it stays where inputs have none
        state.refreshes += 1
        weight = max(FRESH, 1 / state.refreshes.item())
        if has_bias:  # the spread of the batches' means is variance too
            moments.add_outer(moments.mean - state.mean, 1 - weight)
        return moments, weight

    def to_factorize(self, state: StageState, moments: Moments, weight: float) -> Moments:
        """What is known with the moments of the last batch."""
        if not self.is_exact:
            return _blend(state, moments, weight)
        if not state.has_units:
            return Moments(state.mean, state.moment, moments.trace)
        state.input_unit.copy_(units(state.moment))
        across, along = state.input_unit.unsqueeze(1), state.input_unit.unsqueeze(2)
        return Moments(state.mean, state.moment / across / along, moments.trace)

    def begin(self, state: StageState, has_bias: bool) -> None:
        """Momentum, rho and C, where there are none."""
        layout = self.layout()
        if self.is_whitened and "output_moment" not in state:
            identity = torch.eye(self.outputs, dtype=state.mean.dtype, device=state.mean.device)
            state.output_moment = identity.repeat(self.groups, 1, 1)
            state.output_refreshes = state.mean.new_zeros(self.groups)
        directions = ["along_inputs"] if self.has_directions else []
        for name in (*StageState.RUNNING, *directions, "velocity", *(["bias_velocity"] if has_bias else [])):
            if name not in state:
                shape, dtype = layout[name]
                state.entries[name] = state.mean.new_zeros(shape, dtype=dtype)

    def conform(self, state: StageState) -> None:
        """The dtype and device of the weight, should these have changed since the last step."""
        if state.mean.dtype == self._dtype and state.mean.device == self.weight.device:
            return
        for name, (shape, dtype) in self.layout().items():
            if name in state and len(shape):
                state.entries[name] = state.entries[name].to(self.weight.device, dtype)

    def initialize(self, state: StageState, has_bias: bool) -> None:
        """All entries of the state, for those who fill them in place; the first moments overwrite them."""
        if "refreshes" not in state:
            self._reset(state, self.zeros(), 0.0, 0.0)
            self.begin(state, has_bias)

    def _about(self, moments: Moments, has_bias: bool) -> Moments:
        """Centred at the mean, which a bias absorbs, or at 0."""
        moments = moments.to(self._dtype)
        if not has_bias:
            moments.add_outer(moments.mean, 1.0)
            moments.mean = torch.zeros_like(moments.mean)
        return moments

    def _reset(self, state: StageState, moments: Moments, rows: float, samples: float) -> None:
        """Entries of the right shapes for the first moments."""
        mean = moments.mean
        state.mean, state.refreshes = mean.clone(), torch.zeros((), dtype=torch.float32)
        state.rows = torch.tensor(rows, dtype=torch.float32)
        state.samples = torch.tensor(samples, dtype=torch.float32)
        if self.is_exact or self.map.one_hot:
            state.moment = moments.product.clone()
        if not self.map.one_hot:
            if self.is_exact:
                state.input_unit = torch.ones_like(mean)
            state.basis = mean.new_zeros(self.groups, self.inputs, self.rank)
            state.values, state.tail = mean.new_zeros(self.groups, self.rank), mean.new_zeros(self.groups)

    def zeros(self) -> Moments:
        """Moments of the right shapes."""
        mean = local_part(self.weight).new_zeros(self.groups, self.inputs, dtype=self._dtype)
        if self.map.one_hot:
            return Moments(mean, mean.clone(), mean[:, 0].clone())
        moments = self.captured.moments
        known = moments.block if isinstance(moments, InputMoments) else None
        block = None if self.is_exact else self._first_block() if known is None else known
        return Moments(mean, mean.new_zeros(self.groups, self.inputs, self.rank), mean[:, 0].clone(), block)

    def _first_block(self) -> Tensor:
        like = local_part(self.weight).new_zeros((), dtype=self._dtype)
        return first_block(self.groups, self.inputs, self.rank, like)


def _blend(state: StageState, moments: Moments, weight: float) -> Moments:
    """(1 - weight) A + weight A_new times the block of the new moments, with A in the form of a Factor."""
    assert moments.block is not None
    basis, values, tail, block = state.basis, state.values, state.tail, moments.block
    if weight == 1:
        return moments
    old = basis @ ((values - tail[:, None]).unsqueeze(2) * (basis.mT @ block)) + tail[:, None, None] * block
    trace = values.sum(1) + tail * (basis.shape[1] - basis.shape[2])
    return Moments(moments.mean, torch.lerp(old, moments.product, weight),
                   torch.lerp(trace, moments.trace, weight), block)
