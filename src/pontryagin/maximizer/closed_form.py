"""The argmax of the augmented Hamiltonian of an affine stage, from its moments: a Sylvester equation."""

from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.hamiltonian import Measures, Penalties
from pontryagin.hamiltonian.affine import AffineMoments, affine_moments, quadratic_forms
from pontryagin.maximizer.conjugate_gradients import conjugate_gradients
from pontryagin.maximizer.protocol import require_unconstrained
from pontryagin.problem import NoCost, NonFiniteError, ProblemError, Quadratic, Stage
from pontryagin.trajectory import StageGroup

Controls = Float[Tensor, "stage control"]


@dataclass(frozen=True)
class ClosedForm:
    """Exact for stages with an affine form, running cost none or quadratic, Theta = R^p.

    With means over samples G = mean u x^T, g = mean u, A_c the centred second moment of x, U = mean u u^T
    and a running cost of weight lambda, the change (dW, db) solves

        rho_state dW A_c + rho_costate U dW + lambda dW = G - g s^T - lambda W       (lambda = 0 on the bias)

    where db = g / rho_state - dW s has been eliminated; with lambda on the bias too, the elimination keeps
    the part of s s^T that the bias no longer absorbs. damping adds damping * mean(diag A_c) to A_c (and
    likewise to U): 0 is the exact argmax, with the pseudo-inverse where the inputs are rank-deficient; a
    small positive value keeps the step short along directions in which the inputs hardly vary.

    Of a convolution x are the patches. Its costate penalty couples neighbouring positions, so with
    rho_costate > 0 the equation is solved by conjugate gradients, preconditioned by the Sylvester equation in
    which the coupling is left out.
    """

    damping: float = 1e-3

    def __post_init__(self) -> None:
        if not (isfinite(self.damping) and self.damping >= 0):
            raise ProblemError(f"damping: expected a finite number >= 0, found {self.damping}")

    def model(self, group: StageGroup) -> "ClosedFormModel":
        """Moments now, the factorization at the first solve."""
        return self.model_of_moments(group, self.moments(group))

    def moments(self, group: StageGroup) -> AffineMoments:
        """All that the maximization has to know of states and costates."""
        require_unconstrained(group, "ClosedForm")
        if group.stage.affine is None:
            raise ProblemError("ClosedForm needs a stage that is affine in its control, but "
                               f"{group.stage.name} is not known to be: split it at its affine map "
                               "(split_euler), or use LBFGS")
        return affine_moments(group, group.stage.affine)

    def model_of_moments(self, group: StageGroup, moments: AffineMoments) -> "ClosedFormModel":
        """The model from moments; the group's states and costates are not read."""
        return ClosedFormModel(group, self.damping, moments)


class ClosedFormModel:
    """The quadratic H~ of equal affine stages, batched."""

    def __init__(self, group: StageGroup, damping: float, moments: AffineMoments) -> None:
        assert group.stage.affine is not None
        self.group, self.damping, self.form, self.evaluations = group, damping, group.stage.affine, 0
        self.moments = moments
        self.decay = _quadratic_weight(group.stage) / self.moments.positions
        self.gradient = self.moments.positions * (
            self.form.control(self.moments.gradient, self.moments.bias_gradient) - self.decay * group.control)
        self._factors: tuple[float, tuple[Tensor, Tensor]] | None = None
        self._costate_factors: tuple[Tensor, Tensor] | None = None

    def maximize(self, penalties: Penalties) -> Controls:
        """The global argmax (damping = 0), whatever the start."""
        return self.group.control + self.solve(self.gradient, penalties)

    def solve(self, gradient: Controls, penalties: Penalties) -> Controls:
        """The change of controls whose penalties balance this gradient."""
        if penalties.rho_state == 0 and self.decay == 0:
            raise ProblemError(
                f"{self.group.stage.name}: the Hamiltonian of an affine stage has no maximum without a state "
                "penalty or a quadratic running cost; use rho_state > 0 or Quadratic(weight)")
        weight, bias = self.form.matrices(gradient / self.moments.positions)
        absorbed = penalties.rho_state / (penalties.rho_state + self.decay)
        if self.form.bias:
            weight = weight - absorbed * bias.unsqueeze(2) * self.moments.input_mean.unsqueeze(1)
        solver = self._sylvester if self.form.reaching is None or penalties.rho_costate == 0 else self._coupled
        change = solver(weight, penalties, absorbed if self.form.bias else 0.0)
        mean_move = torch.einsum("nij,nj->ni", change, self.moments.input_mean)
        bias_change = (bias - penalties.rho_state * mean_move) / (penalties.rho_state + self.decay)
        result = self.form.control(change, bias_change)
        if not result.isfinite().all():
            raise NonFiniteError(f"{self.group.stage.name}: the closed form gave NaN or infinite controls; "
                                 "its moments are finite only while states and costates are: raise the "
                                 "damping or the penalties")
        return result

    def measure(self, controls: Controls) -> Measures:
        """Exact, from the moments."""
        stage = self.group.stage
        linear, state, costate = quadratic_forms(self.form, self.moments,
                                                 *self.form.matrices(controls - self.group.control))
        return Measures(linear - stage.cost(controls) + stage.cost(self.group.control), state, costate)

    def _sylvester(self, right: Tensor, penalties: Penalties, absorbed: float) -> Tensor:
        """X of rho_state X B + rho_costate U X + lambda X = right, B = A_c + (1 - absorbed) s s^T."""
        values, vectors = self._input_factors(absorbed)
        denominator = penalties.rho_state * values.unsqueeze(1) + self.decay
        rotated = right.to(values.dtype) @ vectors
        if penalties.rho_costate > 0:
            costate_values, costate_vectors = self._output_factors()
            denominator = denominator + penalties.rho_costate * costate_values.unsqueeze(2)
            rotated = costate_vectors.mT @ rotated
        denominator = denominator.expand_as(rotated)
        floor = torch.finfo(right.dtype).eps * denominator.shape[-1] * denominator.amax((1, 2), keepdim=True)
        solved = torch.where(denominator > floor, rotated / denominator, 0.0)
        if penalties.rho_costate > 0:
            solved = costate_vectors @ solved
        return (solved @ vectors.mT).to(right.dtype)

    def _coupled(self, right: Tensor, penalties: Penalties, absorbed: float) -> Tensor:
        """The same with the costates' moment of a convolution in the place of U, which acts on (channel,
        output * tap)."""
        inputs, costates = damped(self._inputs(absorbed), self.damping), damped(self.moments.costates,
                                                                                self.damping)

        def operator(change: Tensor) -> Tensor:
            state = penalties.rho_state * (change @ inputs) + self.decay * change
            return state + penalties.rho_costate * self.form.by_output(self.form.by_channel(change) @ costates)

        return conjugate_gradients(operator, lambda rest: self._sylvester(rest, penalties, absorbed),
                                   right.to(inputs.dtype)).to(right.dtype)

    def _inputs(self, absorbed: float) -> Tensor:
        if absorbed == 1:
            return self.moments.inputs
        mean = self.moments.input_mean
        return self.moments.inputs + (1 - absorbed) * mean.unsqueeze(2) * mean.unsqueeze(1)

    def _input_factors(self, absorbed: float) -> tuple[Tensor, Tensor]:
        if self._factors is None or self._factors[0] != absorbed:
            self._factors = (absorbed, damped_eigen(self._inputs(absorbed), self.damping))
        return self._factors[1]

    def _output_factors(self) -> tuple[Tensor, Tensor]:
        """Of U; of a convolution's moment the mean over taps, each tap by itself."""
        if self._costate_factors is None:
            moment, taps = self.moments.costates, self.form.taps
            each = moment.unflatten(1, (-1, taps)).unflatten(3, (-1, taps)).diagonal(dim1=2, dim2=4).mean(-1)
            self._costate_factors = damped_eigen(each, self.damping)
        return self._costate_factors


def damped_eigen(matrix: Float[Tensor, "stage n n"], damping: float) -> tuple[Tensor, Tensor]:
    """Eigenvalues of matrix + damping * mean(diagonal) I, clipped at zero, and eigenvectors, in float64.

    The factorization of a small moment matrix costs little in float64, and its small eigenvalues are lost
    in float32. Raises NonFiniteError when the moments are not finite.
    """
    exact = _exact(matrix)
    values, vectors = torch.linalg.eigh(exact)
    scale = exact.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
    return values.clamp_min(0) + damping * scale, vectors


def damped(matrix: Float[Tensor, "stage n n"], damping: float) -> Float[Tensor, "stage n n"]:
    """matrix + damping * mean(diagonal) I in float64. Raises NonFiniteError when the moments are not
    finite."""
    exact = _exact(matrix)
    shift = damping * exact.diagonal(dim1=-2, dim2=-1).mean(-1)
    return exact + shift[:, None, None] * torch.eye(exact.shape[-1], dtype=exact.dtype, device=exact.device)


def _exact(matrix: Tensor) -> Tensor:
    if not matrix.isfinite().all():
        raise NonFiniteError("the moments of inputs or costates are NaN or infinite: some state or costate "
                             "is too large")
    return matrix.double() if matrix.device.type != "mps" else matrix


def _quadratic_weight(stage: Stage) -> float:
    if isinstance(stage.running_cost, NoCost):
        return 0.0
    if isinstance(stage.running_cost, Quadratic):
        return stage.step_size * stage.running_cost.weight
    raise ProblemError(f"ClosedForm takes no running cost or a Quadratic one, but {stage.name} has "
                       f"{stage.running_cost!r}")
