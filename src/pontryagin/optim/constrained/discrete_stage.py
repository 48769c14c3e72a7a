"""One affine stage whose matrix lies in a discrete set: no weights but those of the set are kept."""

from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.affine import VarianceProbe
from pontryagin.affine.precision import wide
from pontryagin.distributed.probes import variances_over_processes
from pontryagin.maximizer.grid_argmax import DiscreteArgmax, GridArgmax, Pace
from pontryagin.maximizer.priced_argmax import PricedArgmax
from pontryagin.optim.fading import floored, long_mean
from pontryagin.optim.state import Layout, Record
from pontryagin.problem import DiscreteSet, ProblemError
from pontryagin.problem.admissible.grid import short_scale
from pontryagin.trajectory.captured_stage import CapturedStage

_SHORTEST, _GROWTH = 100.0, 5.0
"""M averages over the last 100 + k / 5 gradients at step k."""
_DAMPING = 0.05
_LOOK = 16
"""The inputs are looked at in every so many steps, and at steps 1, 2, 4, 8."""
_FRESH = 0.1
_ROUNDING = 100.0
"""In units of the type's precision and of the largest gradient: what a gradient of 0 may look like."""
_TURNS, _LARGE = 4, 1 << 16
"""Large matrices take turns: in a step only every fourth row moves, four times as many of its entries."""


class DiscreteState(Record):
    """Of the weight of a stage over a grid.

    average: the running mean of its gradients, (row, input). variance: of its inputs, (group, input). scale:
    of each row, (row). looks: at the inputs. steps: taken. owed: moves owed to the next step. moved: the
    share of entries that the last step moved. long_size: the long mean of the squared gradient's size.
    """

    average: Tensor
    variance: Tensor
    scale: Tensor
    looks: Tensor
    steps: Tensor
    owed: Tensor
    moved: Tensor
    long_size: Tensor


class DiscreteStage:
    """The maximization of one stage over a grid. All that lasts is in the optimizer's state of its weight, as
    tensors."""

    def __init__(self, captured: CapturedStage, theta: DiscreteSet) -> None:
        self.captured, self.theta, self.name = captured, theta, captured.name
        self._inputs = VarianceProbe()
        captured.moments = self._inputs  # type: ignore[assignment]
        self._version = -1

    @property
    def weight(self) -> nn.Parameter:
        """The weight; its matrix is (output, everything else)."""
        return self.captured.weight

    def check(self, group: dict[str, Any]) -> None:
        """Refuse a price on non-zero weights where no weight can be 0, or where they have more values than
        signs."""
        if group["density"] is not None and (self.theta.grid.limit, self.theta.grid.step) != (1, 1):
            raise ProblemError(f"EMSA density is for weights in Ternary(), but {self.name} lies in "
                               f"{self.theta!r}: leave density out of the param group of this weight")

    def arm(self, state: DiscreteState) -> None:
        """Look at the inputs of the next batch if it is time."""
        step = int(state.steps) + 1 if "steps" in state else 1
        armed = step % _LOOK == 0 or (step < _LOOK and step & (step - 1) == 0)
        self.captured.look(armed, probing=False)

    def layout(self) -> Layout:
        """Shapes and dtypes of all entries of its state."""
        groups, _, inputs = self.captured.map.matrix(self.weight.detach()).shape
        matrix = self.weight.flatten(1).shape
        dtype, number = wide(self.weight.dtype), torch.Size(())
        found = dict.fromkeys(("looks", "steps", "moved"), (number, torch.float32))
        found |= dict.fromkeys(("owed", "long_size"), (number, torch.float64))
        variance = torch.Size((groups, inputs))
        return found | {"average": (matrix, dtype), "variance": (variance, dtype),
                        "scale": (matrix[:1], dtype)}

    def prepare(self, state: DiscreteState) -> None:
        """All entries of the state. Raise ProblemError where the weight lies outside its set."""
        assert self.weight.grad is not None
        if "average" not in state:
            self._begin(state, self.weight.grad.flatten(1).shape, wide(self.weight.dtype))
        self._check(state)

    def step(self, state: DiscreteState, group: dict[str, Any], density: float | None,
             largest: float) -> None:
        """Take the gradient into its running mean and move the entries whose move is worth most. density: the
        share of entries that a price leaves, None without one. largest: the largest entry of the gradient:
        fewer entries move where gradients fade (fading.py), and none where they are 0."""
        assert self.weight.grad is not None
        gradient = self.weight.grad.flatten(1)
        self._take_inputs(state)
        state.steps += 1
        steps = int(state.steps)
        _average(state.average, gradient, steps)
        length = self._length(state, largest)
        if length > 0:
            rate = float(group["lr"])
            turns = _TURNS if gradient.numel() >= _LARGE else 1
            rows = slice(steps % turns, None, turns)
            share = min(rate * group["flip_rate"] * turns * length, 1.0)
            self._move(state, rows, share, steps, rate * turns * length, density)
        else:
            state.moved = torch.zeros(())
        self._version = self.weight._version

    def _length(self, state: DiscreteState, largest: float) -> float:
        """1, less where the gradient has fallen."""
        square = torch.tensor(largest, dtype=torch.float64).square()
        state.long_size = long_mean(state.long_size, square, int(state.steps))
        known = floored(square, state.long_size)
        return float((square / known).sqrt()) if known > 0 else 0.0

    def forget(self) -> None:
        """Drop what has been seen of a batch that is not used."""
        self._inputs.take()

    def _begin(self, state: DiscreteState, shape: torch.Size, dtype: torch.dtype) -> None:
        groups, _, inputs = self.captured.map.matrix(self.weight.detach()).shape
        blank = self.weight.new_zeros((), dtype=dtype)
        state.entries.update(average=blank.new_zeros(shape), variance=blank.new_ones(groups, inputs),
                     looks=torch.zeros(()), scale=blank.new_ones(shape[0]), steps=torch.zeros(()),
                     owed=torch.zeros((), dtype=torch.float64), moved=torch.zeros(()),
                     long_size=torch.zeros((), dtype=torch.float64))

    def _take_inputs(self, state: DiscreteState) -> None:
        # else they are not what W multiplies
        taken = self._inputs.take() if self.captured.verdict() is not False else None
        found = variances_over_processes([taken], lambda: [state.variance])[0]
        if found is not None and found.variance.isfinite().all():
            state.looks += 1
            weight = max(_FRESH, 1 / float(state.looks))
            state.variance.lerp_(found.variance.to(state.variance), weight)

    def _check(self, state: DiscreteState) -> None:
        """The scales of the current matrix, where something else than this stage has written to it."""
        if self._version == self.weight._version:
            return
        matrix = self.weight.detach().flatten(1)
        if not self.theta.contains(matrix):
            raise ProblemError(f"{self.name} lies outside {self.theta!r}: something else than this optimizer "
                               "has changed it; project it, or make the optimizer after the weights have "
                               "been loaded")
        state.scale.copy_(self.theta.encode(matrix)[1])

    def _move(self, state: DiscreteState, rows: slice, share: float, steps: int, step_scale: float,
              density: float | None) -> None:
        matrix = self.weight.detach().flatten(1)
        weight, average = matrix[rows], state.average[rows]
        scale = state.scale[rows].to(matrix.dtype).unsqueeze(1)
        argmax: DiscreteArgmax = GridArgmax(self.theta.grid) if density is None else PricedArgmax(density)
        new, number, state.owed = argmax(weight, average, scale, self._metric(state, rows, argmax.exponent),
                                          Pace(share, state.owed, steps))
        if self.theta.scale == "row":
            new = self._rescaled(state, new, average, rows, step_scale)
        weight.copy_(new)
        state.moved = (number / matrix.numel()).to(torch.float32).cpu()

    def _rescaled(self, state: DiscreteState, weight: Tensor, average: Tensor, rows: slice,
                  step_scale: float) -> Tensor:
        """Scales changed by lr times the cosine of M_i and c_i: in units of a_i and of the largest possible
        gain. Rows whose M_i is the rounding of 0, as behind a softmax that sees all classes move alike, keep
        theirs."""
        old = state.scale[rows]
        codes = (weight / old.to(weight.dtype).unsqueeze(1)).round().to(average.dtype)
        largest = average.abs().amax(1, keepdim=True)
        cosine = torch.nn.functional.cosine_similarity(average / torch.where(largest > 0, largest, 1.0),
                                                       codes, dim=1)
        rounding = _ROUNDING * torch.finfo(average.dtype).eps * largest.amax()
        cosine = cosine.where(largest.squeeze(1) > rounding, 0.0)
        new = short_scale(old * (step_scale * cosine).clamp(-0.5, 0.5).exp(), self.theta.grid, weight.dtype)
        state.scale[rows] = new.to(old.dtype)
        return codes.to(weight.dtype) * new.unsqueeze(1)

    def _metric(self, state: DiscreteState, rows: slice, exponent: float) -> Tensor:
        """(v + damping mean v)^-exponent for each row, or one row for all."""
        variance = state.variance
        shift = _DAMPING * variance.mean(1, keepdim=True) + torch.finfo(variance.dtype).tiny
        metric = (variance + shift).pow(-exponent)
        if len(metric) == 1:
            return metric
        return metric.repeat_interleave(len(state.scale) // len(metric), 0)[rows]


def _average(average: Tensor, gradient: Tensor, steps: int) -> None:
    """M <- M + (G - M) / min(k, 100 + k / 5), G minus the gradient of the loss."""
    weight = 1.0 / min(float(steps), _SHORTEST + steps / _GROWTH)
    average.mul_(1 - weight).add_(gradient, alpha=-weight)
