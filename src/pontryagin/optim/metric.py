"""The metric in which a stage's step is measured: powers of the damped second moment of its inputs.

With A_c = mean (x - s)(x - s)^T and the shift delta = damping * mean(diag A_c), the metric is (A_c + delta I)^power. Power 1 is
the state penalty of the augmented Hamiltonian, mean |dW x|^2, and G (A_c + delta I)^-1 its argmax. Power 1/2 is the geometric
mean of the state penalty and |dW|^2: it whitens the noise of G, whose covariance is close to U (x) A / samples.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

Moment = Float[Tensor, "group input input"]
Diagonal = Float[Tensor, "group input"]
Matrix = Float[Tensor, "group output input"]


@dataclass(frozen=True, eq=False)
class Factor:
    """A_c as Q diag(values) Q^T + tail (I - Q Q^T). Q: (group, input, rank), orthonormal columns.

    roots keeps the powers that have been asked for, where Q is square: they serve until the next refresh.
    """

    basis: Tensor
    values: Float[Tensor, "group rank"]
    tail: Float[Tensor, " group"]
    roots: dict[tuple[float, float], Tensor] = field(default_factory=dict)


def factorize(moment: Moment, rank: int, previous: Tensor | None) -> Factor:
    """Exact up to `rank` inputs; beyond that the leading subspace by subspace iteration, warm-started, the rest by its mean.

    The leading subspace is found by one iteration from the previous one, or two from a fixed random one.
    """
    groups, inputs, _ = moment.shape
    if inputs == 1:
        return Factor(torch.ones_like(moment), moment.squeeze(2), moment.new_zeros(groups))
    if inputs <= rank:
        values, basis = _eigh(moment)
        return Factor(basis.to(moment.dtype), values.clamp_min(0).to(moment.dtype), moment.new_zeros(groups))
    if previous is None:
        generator = torch.Generator().manual_seed(inputs)
        start = torch.randn(1, inputs, rank, generator=generator, dtype=torch.float64).to(moment)
        previous = torch.linalg.qr(moment @ start)[0]
        previous = torch.linalg.qr(moment @ previous)[0]
    basis = torch.linalg.qr(moment @ previous)[0]
    values, rotation = (part.to(moment.dtype) for part in _eigh(basis.mT @ (moment @ basis)))
    values = values.clamp_min(0)
    trace = moment.diagonal(dim1=-2, dim2=-1).sum(-1)
    return Factor(basis @ rotation, values, ((trace - values.sum(-1)) / (inputs - rank)).clamp_min(0))


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """In float64 where there is one: the small eigenvalues of a moment are lost in float32."""
    return tuple(torch.linalg.eigh(matrix.double() if matrix.device.type != "mps" else matrix))


def solve(factor: Factor, right: Matrix, damping: float, power: float) -> Matrix:
    """Right (A_c + delta I)^-power. With damping 0 the pseudo-inverse: directions without input variance get 0."""
    if factor.basis.shape[1] == factor.basis.shape[2]:
        if (damping, power) not in factor.roots:
            factor.roots[damping, power] = (factor.basis * _inside(factor, damping, power).unsqueeze(1)) @ factor.basis.mT
        return right @ factor.roots[damping, power]
    shift = damping * mean_diagonal(factor)
    inside = _inside(factor, damping, power)
    rotated = right @ factor.basis
    outside = _power((factor.tail + shift)[:, None], factor.values, power)
    return right * outside.unsqueeze(1) + (rotated * (inside - outside).unsqueeze(1)) @ factor.basis.mT


def _inside(factor: Factor, damping: float, power: float) -> Float[Tensor, "group rank"]:
    return _power(factor.values + damping * mean_diagonal(factor)[:, None], factor.values, power)


def squared_change(factor: Factor, change: Matrix) -> Float[Tensor, "group output"]:
    """Mean (dW (x - s))^2 of each output: the diagonal of dW A_c dW^T."""
    inside = (change @ factor.basis).square()
    result = (inside * factor.values.unsqueeze(1)).sum(-1)
    if factor.basis.shape[1] != factor.basis.shape[2]:
        result = result + factor.tail[:, None] * (change.square().sum(-1) - inside.sum(-1)).clamp_min(0)
    return result


def mean_diagonal(factor: Factor) -> Float[Tensor, " group"]:
    """mean(diag A_c)."""
    inputs, rank = factor.basis.shape[1:]
    return (factor.values.sum(-1) + (inputs - rank) * factor.tail) / inputs


def solve_diagonal(moment: Diagonal, right: Matrix, damping: float, power: float) -> Matrix:
    """The same for one-hot inputs, whose second moment is diagonal: their frequencies."""
    return right * _power(moment + damping * moment.mean(-1, keepdim=True), moment, power).unsqueeze(1)


def _power(shifted: Tensor, values: Tensor, power: float) -> Tensor:
    floor = torch.finfo(values.dtype).eps * values.shape[-1] * values.amax(-1, keepdim=True)
    return torch.where(shifted > floor, shifted, torch.inf).pow(-power)
