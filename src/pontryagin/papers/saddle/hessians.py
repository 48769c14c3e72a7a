"""Hessians of the sine problem: where they are taken, and what is kept of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pontryagin.diagnostics import (
    Density,
    Extremes,
    HessianOperator,
    extreme_eigenvalues,
    problem_hessian,
    spectral_density,
)
from pontryagin.papers.sine.methods import METHODS
from pontryagin.papers.sine.task import LAYERS, SineTask, Theta

COUNT = 5
"""Eigenvalues at each end."""


@dataclass(frozen=True)
class Place:
    """The Hessian at some controls."""

    method: str
    iteration: int
    loss: float
    gradient_norm: float
    extremes: Extremes

    @property
    def row(self) -> tuple[str, int, float, float, float, float]:
        """A row of curvature.csv."""
        return (self.method, self.iteration, self.loss, self.gradient_norm, float(self.extremes.lowest[0]),
                float(self.extremes.highest[-1]))


def zeros() -> Theta:
    """W = b = 0 in every layer."""
    return torch.zeros(LAYERS, 30, dtype=torch.float64)


def hessian_at(task: SineTask, theta: Theta) -> HessianOperator:
    """Of the mean squared error over the task's 1000 samples, in all 600 controls."""
    return problem_hessian(task.problem(), list(theta.unbind()))


def place(task: SineTask, method: str, iteration: int, theta: Theta) -> Place:
    """Loss, gradient and extreme eigenvalues."""
    hessian = hessian_at(task, theta)
    return Place(method, iteration, task.loss(theta).item(), hessian.gradient_norm,
                 extreme_eigenvalues(hessian, COUNT))


def spectrum(task: SineTask, theta: Theta) -> tuple[Tensor, Density]:
    """All 600 eigenvalues from the dense matrix, and the density from Lanczos quadrature, which needs no
    matrix."""
    hessian = hessian_at(task, theta)
    return torch.linalg.eigvalsh(hessian.dense()), spectral_density(hessian)


def negative(values: Tensor) -> int:
    """How many eigenvalues are below zero by more than rounding, 1e-9 of the largest."""
    return int((values < -1e-9 * values.abs().max()).sum())


def along(task: SineTask, method: str, iterations: int, rate: float, chosen: Callable[[int], bool]
          ) -> list[tuple[int, Theta]]:
    """The controls of a run of a method of the sine at the chosen iterations, from the initial ones
    (iteration 0)."""
    seen = [task.start()]

    def observe(theta: Theta, evaluations: int, record: object) -> bool:
        seen.append(theta)
        return True

    METHODS[method].run(task, iterations, rate, observe)
    return [(number, theta) for number, theta in enumerate(seen) if number == 0 or chosen(number)]
