"""A control that is 0 or 1: the relaxed control rounded, then moved by the maximum principle over {0, 1}."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.continuous import Discretization, solve
from pontryagin.hamiltonian import measure
from pontryagin.trajectory import Propagation, group_stages

_TRIED = 8
"""Of the most promising moves, before the search ends: where so many do not keep their promise, the mesh is
too coarse for another."""


@dataclass(frozen=True)
class Rounded:
    """J of the relaxed control, of its rounding, and after `flips` of intervals. values: (interval,)."""

    intervals: int
    relaxed: float
    rounded: float
    improved: float
    flips: int
    values: Float[Tensor, " interval"]


def rounded(on: Discretization, most: int = 100) -> Rounded:
    """Sum-up rounding of the relaxed optimum, then the argmax over {0, 1} with a penalty that lets one or
    two stages move at a time: of the flips of a stage, and of two neighbors in opposite directions, that
    which promises the largest Hamiltonian gain is taken if J falls, else the next.

    on: one control, constant on every interval, 0 <= theta <= 1. most: moves. Source of the rounding: Sager
    2006.
    """
    relaxed = solve(on)
    stages, values = on.control_problem(), sum_up(relaxed.values.flatten(), on.mesh.diff())
    first = last = Propagation(stages, on.controls(values.unsqueeze(1)))
    flips, going = 0, True
    while going and flips < most:
        group, = group_stages(stages, last.controls, last.trajectory())
        going = False
        for flipped in _moves(values, measure(group, 1 - group.control).gain):
            trial = values.clone()
            trial[flipped] = 1 - trial[flipped]
            after = Propagation(stages, on.controls(trial.unsqueeze(1)))
            if after.objective < last.objective:
                values, last, flips, going = trial, after, flips + 1, True
                break
    return Rounded(on.intervals, relaxed.objective, first.objective, last.objective, flips, values)


def _moves(values: Tensor, gain: Tensor) -> list[list[int]]:
    """Single intervals, and neighbors of different values, the most promising first; those that promise
    something."""
    moves = [[n] for n in range(len(values))]
    moves += [[n, n + 1] for n in range(len(values) - 1) if values[n] != values[n + 1]]
    promised = {tuple(move): float(gain[move].sum()) for move in moves}
    moves.sort(key=lambda move: -promised[tuple(move)])
    return [move for move in moves[:_TRIED] if promised[tuple(move)] > 0]


def sum_up(values: Float[Tensor, " interval"],
           steps: Float[Tensor, " interval"]) -> Float[Tensor, " interval"]:
    """1 where the integral of the relaxed control is half a step ahead of that of the rounded one, else 0."""
    result, ahead = torch.zeros_like(values), 0.0
    for n, (value, step) in enumerate(zip(values.tolist(), steps.tolist(), strict=True)):
        ahead += value * step
        if ahead >= 0.5 * step:
            result[n], ahead = 1.0, ahead - step
    return result
