"""The metric in which a stage's step is measured: powers of the damped second moment of its inputs.

With A_c = mean (x - s)(x - s)^T and the shift delta = damping * mean(diag A_c), the metric is (A_c + delta
I)^exponent. Exponent 1 is the state penalty of the augmented Hamiltonian, mean |dW x|^2, and G (A_c + delta
I)^-1 its argmax. Exponent 1/2 is the geometric mean of the state penalty and |dW|^2: it whitens the noise of
G, whose covariance is close to U (x) A / samples.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.affine.moments import Moments
from pontryagin.affine.precision import extended
from pontryagin.errors import NonFiniteError

_LEAST = 1e-30
"""Inputs that vary by less than 1e-15 are taken to vary by so much: the square of a step in their metric is a
float32 still."""
_ROOT, _WHOLE, _PLAIN = 0.5, 1.0, (1e-3, 1.0)
"""The exponents of which dW A_c dW^T is had without a product, and the dampings: with less an inverse power
leaves directions out, with more the difference is rounding."""
_SMALL = 1 << 17
"""Numbers of moments that a processor factorizes together: calls are saved, and all stays in its cache."""
Moment = Float[Tensor, "group input input"]
Matrix = Float[Tensor, "group output input"]
Row = Float[Tensor, "group output"]


@dataclass(frozen=True, eq=False)
class Power:
    """(A_c + delta I)^-exponent for a damping and a exponent; it serves until the next refresh.

    inside: its eigenvalues along Q, (group, 1, rank); outside: its eigenvalue elsewhere, (group, 1, 1), None
    where Q is square.
    product: what a product with Q is multiplied by, (group, rank, input), or where Q is square the whole,
    (group, input, input). shift: delta; is_known: 0 where inputs do not vary at all, else 1.
    """

    inside: Tensor
    outside: Tensor | None
    product: Tensor
    shift: Float[Tensor, "group 1"]
    is_known: Float[Tensor, "group 1"]


Powers = dict[tuple[float, float], Power]
"""By damping and exponent."""


@runtime_checkable
class FactoredMoment(Protocol):
    """A second moment in a form that can be inverted."""

    def solve(self, right: Matrix, damping: float, exponent: float) -> Matrix:
        """Right (A_c + delta I)^-exponent. With damping 0 the pseudo-inverse: directions without input
        variance get 0."""

    def measured_solve(self, right: Matrix, damping: float, exponent: float) -> tuple[Matrix, Row, Row]:
        """The same, its squared_change, which then costs next to nothing, and the norm of each of its
        rows."""

    def squared_change(self, change: Matrix) -> Row:
        """Mean (dW (x - s))^2 of each output: the diagonal of dW A_c dW^T."""

    def half(self, right: Matrix, damping: float, exponent: float) -> Matrix:
        """Y of which Y Y^T is dW A dW^T, A = A_c + delta I, dW what right is solved to."""

    def power(self, damping: float, exponent: float) -> Power:
        """(A_c + delta I)^-exponent."""


@dataclass(frozen=True, eq=False)
class Factor:
    """A_c as Q diag(values) Q^T + tail (I - Q Q^T). Q: (group, input, rank), orthonormal columns."""

    basis: Tensor
    values: Float[Tensor, "group rank"]
    tail: Float[Tensor, " group"]
    powers: Powers = field(default_factory=dict)

    @property
    def mean_diagonal(self) -> Float[Tensor, " group"]:
        """mean(diag A_c)."""
        return self.trace / self.basis.shape[1]

    @property
    def trace(self) -> Float[Tensor, " group"]:
        """Of A_c."""
        inputs, rank = self.basis.shape[1:]
        return self.values.sum(-1) + (inputs - rank) * self.tail

    def solve(self, right: Matrix, damping: float, exponent: float) -> Matrix:
        """A product with a kept square matrix where Q is square; else right * outside + ((right Q) * (inside
        - outside)) Q^T."""
        kept = self.power(damping, exponent)
        if kept.outside is None:
            return torch.bmm(right, kept.product)
        return (right * kept.outside).baddbmm_(torch.bmm(right, self.basis), kept.product)

    def measured_solve(self, right: Matrix, damping: float, exponent: float) -> tuple[Matrix, Row, Row]:
        """With exponent 1/2 right is dW (A_c + delta I)^(1/2), so that dW A_c dW^T is right right^T - delta
        dW dW^T; with exponent 1 it is right dW^T - delta dW dW^T."""
        change = self.solve(right, damping, exponent)
        norm = row_norm(change, exponent)
        if not is_plain(damping, exponent):
            return change, self.squared_change(change), norm
        kept = self.power(damping, exponent)
        whole = (torch.linalg.vector_norm(right, dim=2).square_() if exponent == _ROOT
                 else torch.linalg.vecdot(right, change)).mul_(kept.is_known)
        return change, whole.addcmul_(norm.square(), kept.shift, value=-1).clamp_min_(0), norm

    def half(self, right: Matrix, damping: float, exponent: float) -> Matrix:
        """Right (A_c + delta I)^(1/2 - exponent)."""
        return right if exponent == _ROOT else self.solve(right, damping, exponent - _ROOT)

    @property
    def turn(self) -> Float[Tensor, "group input direction"]:
        """Q, where it is square."""
        return self.basis

    def squared_change(self, change: Matrix) -> Row:
        """The diagonal of dW A_c dW^T."""
        along = change @ self.basis
        result = _weighted(along, self.values)
        if self.basis.shape[1] != self.basis.shape[2]:
            root = self.tail.sqrt()[:, None]
            whole, inside = (torch.linalg.vector_norm(part, dim=-1) * root for part in (change, along))
            result = result + (whole.square() - inside.square()).clamp_min(0)
        return result

    def power(self, damping: float, exponent: float) -> Power:
        """Kept."""
        if (damping, exponent) not in self.powers:
            self.powers[damping, exponent] = self._new_power(damping, exponent)
        return self.powers[damping, exponent]

    def _new_power(self, damping: float, exponent: float) -> Power:
        shift = (damping * self.mean_diagonal)[:, None]
        inside = _inverse_power(self.values + shift, self.values, exponent).unsqueeze(1)
        more = shift, (self.trace[:, None] > 0).to(shift.dtype)
        if self.basis.shape[1] == self.basis.shape[2]:
            return Power(inside, None, (self.basis * inside) @ self.basis.mT, *more)
        outside = _inverse_power(self.tail[:, None] + shift, self.values, exponent).unsqueeze(2)
        return Power(inside, outside, (self.basis * (inside - outside)).mT.contiguous(), *more)


@dataclass(frozen=True, eq=False)
class Diagonal:
    """A second moment that is diagonal: frequencies of one-hot inputs, or the variance of a single input."""

    values: Float[Tensor, "group input"]
    powers: Powers = field(default_factory=dict)

    def solve(self, right: Matrix, damping: float, exponent: float) -> Matrix:
        """Elementwise."""
        return right * self.power(damping, exponent).product

    def power(self, damping: float, exponent: float) -> Power:
        """Kept. Its product, (group, 1, input), is elementwise."""
        if (damping, exponent) not in self.powers:
            mean = self.values.mean(-1, keepdim=True)
            shift = damping * mean
            inside = _inverse_power(self.values + shift, self.values, exponent).unsqueeze(1)
            self.powers[damping, exponent] = Power(inside, None, inside, shift, (mean > 0).to(shift.dtype))
        return self.powers[damping, exponent]

    def measured_solve(self, right: Matrix, damping: float, exponent: float) -> tuple[Matrix, Row, Row]:
        """One after the other."""
        change = self.solve(right, damping, exponent)
        return change, self.squared_change(change), row_norm(change, exponent)

    def half(self, right: Matrix, damping: float, exponent: float) -> Matrix:
        """As that of a Factor."""
        return right if exponent == _ROOT else self.solve(right, damping, exponent - _ROOT)

    def squared_change(self, change: Matrix) -> Row:
        """Sum over inputs of their second moment times dW^2."""
        return _weighted(change, self.values)


@dataclass(frozen=True, eq=False)
class Scaled:
    """A_c of inputs that are measured in units of their own: x = unit x', and own is that of x'. What is
    solved, and damped, is in their units; a change is one of W again. own: known whole."""

    own: Factor
    unit: Float[Tensor, "group 1 input"]
    powers: Powers = field(default_factory=dict)

    def solve(self, right: Matrix, damping: float, exponent: float) -> Matrix:
        """Right u (u A_c u + delta I)^-exponent u, u = 1 / unit."""
        return self.own.solve(right / self.unit, damping, exponent) / self.unit

    def measured_solve(self, right: Matrix, damping: float, exponent: float) -> tuple[Matrix, Row, Row]:
        """As that of a Factor."""
        change, square, _ = self.own.measured_solve(right / self.unit, damping, exponent)
        change = change / self.unit
        return change, square, row_norm(change, exponent)

    def half(self, right: Matrix, damping: float, exponent: float) -> Matrix:
        """As that of a Factor."""
        return self.own.half(right / self.unit, damping, exponent)

    @property
    def turn(self) -> Float[Tensor, "group input direction"]:
        """1 / unit Q: A_c = turn^-T diag(values) turn^-1."""
        return self.own.basis / self.unit.mT

    @property
    def mean_diagonal(self) -> Float[Tensor, " group"]:
        """mean(diag A_c), of inputs in their units."""
        return self.own.mean_diagonal

    def squared_change(self, change: Matrix) -> Row:
        """The diagonal of dW A_c dW^T."""
        return self.own.squared_change(change * self.unit)

    def power(self, damping: float, exponent: float) -> Power:
        """Kept; its product is u (u A_c u + delta I)^-exponent u."""
        if (damping, exponent) not in self.powers:
            kept = self.own.power(damping, exponent)
            self.powers[damping, exponent] = replace(kept, product=kept.product / self.unit / self.unit.mT)
        return self.powers[damping, exponent]


def is_plain(damping: float, exponent: float) -> bool:
    """Whether dW A_c dW^T is had without a product."""
    return exponent in (_ROOT, _WHOLE) and _PLAIN[0] <= damping <= _PLAIN[1]


def row_norm(change: Matrix, exponent: float) -> Row:
    """Of each row. In the metric of tiny inputs the square of a change by a large power of it is no
    float32."""
    return torch.linalg.vector_norm(change, dim=2, dtype=extended(change) if exponent > _ROOT else None)


def _weighted(change: Matrix, values: Tensor) -> Row:
    """Sum of values times change^2, where the squares alone could be out of range."""
    return (change * values.sqrt().unsqueeze(1)).square().sum(-1)


def factorize(moment: Moment) -> Factor:
    """The exact eigendecomposition."""
    values, basis = eigen(moment)
    return Factor(basis.to(moment.dtype), values.clamp_min(0).to(moment.dtype),
                  moment.new_zeros(moment.shape[0]))


def factorize_rows(rows: Float[Tensor, "group position input"]) -> Factor:
    """Of A = X^T X / n, by the eigenvectors of X X^T / n, which has the same eigenvalues and is the smaller
    one where rows are few."""
    count = rows.shape[1]
    values, left = eigen((rows @ rows.mT).to(extended(rows)) / count)
    known = values > torch.finfo(rows.dtype).eps * count * values[:, -1:]
    scale = torch.where(known, values * count, torch.inf).rsqrt()
    basis = rows.mT @ (left * scale.unsqueeze(1)).to(rows.dtype)
    return Factor(basis, torch.where(known, values, 0.0).to(rows.dtype), rows.new_zeros(len(rows)))


def nystrom(moments: Moments) -> Factor:
    """The leading subspace from one product A_c B with the previous basis B, the rest by its mean; A_c itself
    is not needed.

    A_c is approximated by Y (B^T Y)^-1 Y^T with Y = A_c B (Nystrom), whose range is that of one subspace
    iteration. A shift of a rounding error of the trace keeps the core invertible and is taken off again
    (Tropp et al. 2017, algorithm 3).
    """
    assert moments.block is not None
    inputs, rank = moments.block.shape[1:]
    dtype, wide = moments.product.dtype, extended(moments.product)
    block, trace = moments.block.to(wide), moments.trace.to(wide)
    shift = torch.finfo(dtype).eps * trace[:, None, None] + torch.finfo(dtype).tiny
    product = moments.product.to(wide) + shift * block
    core, rotation = eigen(block.mT @ product)
    inverse_root = torch.where(core > torch.finfo(wide).eps * rank * core.amax(-1, keepdim=True), core,
                               torch.inf).rsqrt()
    basis, triangle = torch.linalg.qr((product @ rotation) * inverse_root.unsqueeze(1))
    squares, left = eigen(triangle @ triangle.mT)
    values = (squares - shift.squeeze(2)).clamp_min(0)
    tail = ((trace - values.sum(-1)) / max(inputs - rank, 1)).clamp_min(0)
    return Factor(basis.to(dtype) @ left.to(dtype), values.to(dtype), tail.to(dtype))


def factorized(each: Sequence[Moments], together: bool) -> list[Factor]:
    """Of the second moments of several stages: exact where they are known whole, else on their leading
    subspace.

    together: equal ones in one go, as pays on a device, where each waits for the one before; elsewhere small
    ones, known whole.
    """
    alike: dict[Hashable, list[int]] = {}
    for place, one in enumerate(each):
        kind = one.product.shape[1:], one.product.dtype, one.product.device
        alike.setdefault((None if together else _batch(place, one), *kind), []).append(place)
    found: dict[int, Factor] = {}
    for places in alike.values():
        parts = [each[place] for place in places]
        joint = parts[0] if len(parts) == 1 else _together(parts)
        whole = factorize(joint.product) if joint.block is None else nystrom(joint)
        sizes = [len(part.mean) for part in parts]
        split = zip(*(value.split(sizes) for value in (whole.basis, whole.values, whole.tail)), strict=True)
        found.update(zip(places, (Factor(*one) for one in split), strict=True))
    return [found[place] for place in range(len(each))]


def _batch(place: int, moments: Moments) -> Hashable:
    """Equal for neighbours that are small, and known whole."""
    small = max(_SMALL // moments.product.numel(), 1)
    return place // small if moments.block is None else ("alone", place)


def _together(parts: Sequence[Moments]) -> Moments:
    block = None if parts[0].block is None else torch.cat([part.block for part in parts
                                                           if part.block is not None])
    return Moments(torch.cat([part.mean for part in parts]), torch.cat([part.product for part in parts]),
                   torch.cat([part.trace for part in parts]), block)


def first_block(groups: int, inputs: int, rank: int, like: Tensor) -> Float[Tensor, "group input rank"]:
    """An orthonormal basis to begin with: random, the same for the same number of inputs."""
    generator = torch.Generator().manual_seed(inputs)
    start = torch.randn(inputs, rank, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(start)[0].to(like).expand(groups, -1, -1)


def eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and vectors of symmetric matrices, in float64 where there is one: a moment's small ones are
    lost in float32."""
    return tuple(torch.linalg.eigh(matrix.to(extended(matrix))))


def damped_eigen(matrix: Tensor, damping: float) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues of matrix + damping * mean(diagonal) I, clipped at zero before, and eigenvectors, in
    float64; of a diagonal, (group, n), no vectors. Raises NonFiniteError when the moments are not finite."""
    exact = _exact(matrix)
    if matrix.ndim == 2:
        return exact.clamp_min(0) + damping * exact.mean(-1, keepdim=True), None
    values, vectors = eigen(exact)
    return values.clamp_min(0) + damping * exact.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True), vectors


def damped(matrix: Tensor, damping: float) -> Moment:
    """matrix + damping * mean(diagonal) I in float64; of a diagonal too. Raises NonFiniteError when the
    moments are not finite."""
    exact = _exact(matrix)
    if matrix.ndim == 2:
        return torch.diag_embed(exact + damping * exact.mean(-1, keepdim=True))
    shift = damping * exact.diagonal(dim1=-2, dim2=-1).mean(-1)
    return exact + shift[:, None, None] * torch.eye(exact.shape[-1], dtype=exact.dtype, device=exact.device)


def _exact(matrix: Tensor) -> Tensor:
    if not matrix.isfinite().all():
        raise NonFiniteError("the moments of inputs or costates are NaN or infinite: some state or costate "
                             "is too large")
    return matrix.to(extended(matrix))


def _inverse_power(shifted: Tensor, values: Tensor, exponent: float) -> Tensor:
    floor = torch.finfo(values.dtype).eps * values.shape[-1] * values.amax(-1, keepdim=True)
    nothing = torch.inf if exponent >= 0 else 0.0
    return torch.where(shifted > floor, shifted.clamp_min(_LEAST), nothing).pow(-exponent)
