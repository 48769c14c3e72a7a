"""The argmax of the augmented Hamiltonian of affine stages under both penalties: a Sylvester equation."""

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.affine.conjugate_gradients import conjugate_gradients
from pontryagin.affine.form import AffineForm
from pontryagin.affine.metric import damped, damped_eigen
from pontryagin.affine.stage_moments import StageMoments

Matrix = Float[Tensor, "stage output input"]
Vector = Float[Tensor, "stage output"]
PerStage = Float[Tensor, " _"]
"""One number a stage; the leading axis of moments and matrices counts the groups of every stage."""


class PenalizedArgmax:
    """Solves for (dW, db), given (R, r) in the place of (G, g),

        rho_state dW A + rho_costate U dW + decay dW = R - absorbed r s^T,     db = (r - rho_state dW s)
                                                                                    / (rho_state + decay)

    with absorbed = rho_state / (rho_state + decay) where there is a bias, else 0, and A = A_c + (1 -
    absorbed) s s^T: the bias has been eliminated. damping adds damping * mean(diag) to A and to U; with 0
    directions in which nothing varies get the pseudo-inverse. decay: of a quadratic running cost, a sample
    and position. ([LCTE] Algorithm 2; factorizations once for all penalties.)
    """

    def __init__(self, form: AffineForm, moments: StageMoments, damping: float, decay: float) -> None:
        self.form, self.moments, self.damping, self.decay = form, moments, damping, decay
        self._inputs: tuple[float, tuple[Tensor, Tensor | None]] | None = None
        self._costates: tuple[Tensor, Tensor] | None = None

    def solve(self, weight: Matrix, bias: Vector, rho_state: float, rho_costate: PerStage,
              rho_control: float = 0.0) -> tuple[Matrix, Vector]:
        """(dW, db). rho_costate: of each stage. rho_control, a sample and position, is added to the decay;
        rho_state + decay > 0."""
        decay = self.decay + rho_control
        absorbed = rho_state / (rho_state + decay) if self.form.bias else 0.0
        if self.form.bias:
            weight = weight - absorbed * bias.unsqueeze(2) * self.moments.input_mean.unsqueeze(1)
        coupled = self.form.map.reaching is not None and bool(rho_costate.any())
        solver = self._coupled if coupled else self._sylvester
        change = solver(weight, rho_state, rho_costate, decay, absorbed)
        moved = torch.einsum("nij,nj->ni", change, self.moments.input_mean)
        return change, (bias - rho_state * moved) / (rho_state + decay)

    def _sylvester(self, right: Matrix, rho_state: float, rho_costate: PerStage, decay: float,
                   absorbed: float) -> Matrix:
        """By the eigenvectors of A and U."""
        values, vectors = self._input_factors(absorbed)
        denominator = rho_state * values.unsqueeze(1) + decay
        rotated = right.to(values.dtype) if vectors is None else right.to(values.dtype) @ vectors
        penalized = bool(rho_costate.any())
        if penalized:
            costate_values, costate_vectors = self._output_factors()
            denominator = denominator + _each(rho_costate, len(right)) * costate_values.unsqueeze(2)
            rotated = costate_vectors.mT @ rotated
        denominator = denominator.expand_as(rotated)
        largest = denominator.amax((1, 2), keepdim=True)
        floor = torch.finfo(right.dtype).eps * denominator.shape[-1] * largest
        solved = torch.where(denominator > floor, rotated / denominator, 0.0)
        if penalized:
            solved = costate_vectors @ solved
        return (solved if vectors is None else solved @ vectors.mT).to(right.dtype)

    def _coupled(self, right: Matrix, rho_state: float, rho_costate: PerStage, decay: float,
                 absorbed: float) -> Matrix:
        """With the moment of the costates that reach a place in the place of U, which acts on (channel,
        output * tap): by conjugate gradients, preconditioned by the equation in which that coupling is left
        out."""
        inputs = damped(self._uncentred(absorbed), self.damping)
        costates = damped(self.moments.costates, self.damping)
        costates = _each(rho_costate, len(costates)) * costates

        def operator(change: Matrix) -> Matrix:
            state = rho_state * (change @ inputs) + decay * change
            return state + self.form.by_output(self.form.by_channel(change) @ costates)

        def alone(rest: Matrix) -> Matrix:
            return self._sylvester(rest, rho_state, rho_costate, decay, absorbed)

        # the groups of a joint map are one system
        shape = (-1, self.form.groups, right.shape[2]) if self.form.map.joint else right.shape
        solved = conjugate_gradients(lambda rest: operator(rest.view(right.shape)).view(shape),
                                     lambda rest: alone(rest.reshape(right.shape)).view(shape),
                                     right.to(inputs.dtype).view(shape))
        return solved.reshape(right.shape).to(right.dtype)

    def _uncentred(self, absorbed: float) -> Tensor:
        """A."""
        if absorbed == 1 or self.moments.inputs.ndim == 2:
            return self.moments.inputs
        mean = self.moments.input_mean
        return self.moments.inputs + (1 - absorbed) * mean.unsqueeze(2) * mean.unsqueeze(1)

    def _input_factors(self, absorbed: float) -> tuple[Tensor, Tensor | None]:
        if self._inputs is None or self._inputs[0] != absorbed:
            self._inputs = (absorbed, damped_eigen(self._uncentred(absorbed), self.damping))
        return self._inputs[1]

    def _output_factors(self) -> tuple[Tensor, Tensor]:
        """Of U; where places are shared the mean over taps, each tap and each group by itself."""
        if self._costates is None:
            moment, taps = self.moments.costates, self.form.map.taps
            if self.form.map.joint:
                each = moment.diagonal(dim1=1, dim2=2).reshape(-1, 1, 1)
            else:
                each = moment.unflatten(1, (-1, taps)).unflatten(3, (-1, taps)).diagonal(dim1=2,
                                                                                         dim2=4).mean(-1)
            values, vectors = damped_eigen(each, self.damping)
            assert vectors is not None
            self._costates = values, vectors
        return self._costates


def _each(numbers: PerStage, count: int) -> Float[Tensor, "_ 1 1"]:
    """Of stages, for as many groups of every stage as there are."""
    return numbers.repeat_interleave(count // len(numbers)).view(-1, 1, 1)
