"""The argmax of the augmented Hamiltonian of an affine stage, from its moments: a Sylvester equation."""

from dataclasses import dataclass
from math import isfinite

from jaxtyping import Float
from torch import Tensor

from pontryagin.affine import PenalizedArgmax, StageMoments, quadratic_forms, stage_moments
from pontryagin.hamiltonian import Measures, Penalties
from pontryagin.maximizer.protocol import require_unconstrained
from pontryagin.problem import NoCost, NoMaximumError, NonFiniteError, ProblemError, Quadratic, Stage
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
    which the coupling is left out. rho_control is added to lambda on the left side.
    """

    damping: float = 1e-3

    def __post_init__(self) -> None:
        if not (isfinite(self.damping) and self.damping >= 0):
            raise ProblemError(f"damping: expected a finite number >= 0, found {self.damping}")

    def model(self, group: StageGroup) -> "ClosedFormModel":
        """Moments now, the factorization at the first solve."""
        return self.model_of_moments(group, self.moments(group))

    def moments(self, group: StageGroup) -> StageMoments:
        """All that the maximization has to know of states and costates."""
        require_unconstrained(group, "ClosedForm")
        if group.stage.affine is None:
            raise ProblemError("ClosedForm needs a stage that is affine in its control, but "
                               f"{group.stage.name} is not known to be: split it at its affine map "
                               "(split_euler), or use LBFGS")
        return stage_moments(group.stage.affine, group.states, group.next_costates)

    def model_of_moments(self, group: StageGroup, moments: StageMoments) -> "ClosedFormModel":
        """The model from moments; the group's states and costates are not read."""
        return ClosedFormModel(group, self.damping, moments)


class ClosedFormModel:
    """The quadratic H~ of equal affine stages, batched."""

    def __init__(self, group: StageGroup, damping: float, moments: StageMoments) -> None:
        assert group.stage.affine is not None
        self.group, self.form, self.moments, self.evaluations = group, group.stage.affine, moments, 0
        self.decay = _quadratic_weight(group.stage) / moments.positions
        self.gradient = moments.positions * (self.form.control(moments.gradient, moments.bias_gradient)
                                             - self.decay * group.control)
        self._argmax = PenalizedArgmax(self.form, moments, damping, self.decay)

    def maximize(self, penalties: Penalties) -> Controls:
        """The global argmax (damping = 0), whatever the start."""
        return self.group.control + self.solve(self.gradient, penalties)

    def solve(self, gradient: Controls, penalties: Penalties) -> Controls:
        """The change of controls whose penalties balance this gradient."""
        if penalties.step_scale == 0 and self.decay == 0:
            raise NoMaximumError(
                f"{self.group.stage.name}: the Hamiltonian of an affine stage has no maximum without a state "
                "penalty or a quadratic running cost; use rho_state > 0 or Quadratic(weight)")
        positions = self.moments.positions
        weight, bias = self.form.matrices(gradient / positions)
        change = self._argmax.solve(weight, bias, penalties.rho_state,
                                    penalties.rho_costate * self.group.protects(penalties.everywhere),
                                    penalties.rho_control / positions)
        result = self.form.control(*change)
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


def _quadratic_weight(stage: Stage) -> float:
    if isinstance(stage.running_cost, NoCost):
        return 0.0
    if isinstance(stage.running_cost, Quadratic):
        return stage.step_size * stage.running_cost.weight
    raise ProblemError(f"ClosedForm takes no running cost or a Quadratic one, but {stage.name} has "
                       f"{stage.running_cost!r}")
