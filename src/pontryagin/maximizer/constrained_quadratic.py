"""The exact quadratic model of H~ of affine stages in the matrix alone, to be maximized over sets."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.affine import AffineForm, StageMoments, quadratic_forms, stage_moments
from pontryagin.hamiltonian import Measures, Penalties
from pontryagin.maximizer.entrywise import SeparableCost, separable_cost
from pontryagin.problem import MatrixSet, NoMaximumError, PerParameter, ProblemError
from pontryagin.trajectory import StageGroup

Controls = Float[Tensor, "stage control"]
Matrix = Float[Tensor, "stage row column"]


@dataclass(frozen=True)
class ConstrainedQuadratic:
    """f(V) = <R, D> - 1/2 <D, D A + U(D)> - cost(V) + cost(V_0), D = V - V_0, per sample and position: H~ /
    positions.

    V_0 (`origin`) are the controls of the trajectory; `warm` is where an iterative argmax may begin. V = W
    with the bias eliminated (free, and its cost none or quadratic), or [W b]. A already holds rho_state, U
    rho_costate; U(D) is U dW, of a convolution the coupling of overlapping patches, and 0 on the column of b.
    theta, bias_theta: the sets of W and b; None: R^p.
    """

    group: StageGroup
    origin: Matrix
    warm: Matrix
    slope: Matrix
    inputs: Float[Tensor, "stage column column"]
    costates: Float[Tensor, "stage reach reach"] | None
    cost: SeparableCost
    theta: MatrixSet | None
    bias_theta: MatrixSet | None
    with_bias: bool
    moments: StageMoments
    rho_state: float

    @property
    def width(self) -> int:
        """Columns of W."""
        return self.origin.shape[2] - self.with_bias

    @property
    def form(self) -> AffineForm:
        """What is affine in the control."""
        assert self.group.stage.affine is not None
        return self.group.stage.affine

    @cached_property
    def diagonal(self) -> Matrix:
        """Curvature along each entry alone."""
        return self._curvature(self.inputs.diagonal(dim1=1, dim2=2),
                               None if self.costates is None else self.costates.diagonal(dim1=1, dim2=2))

    @cached_property
    def majorant(self) -> Matrix:
        """The diagonal of a larger form, by sums of absolute rows: with it entries may be moved together."""
        return self._curvature(self.inputs.abs().sum(2),
                               None if self.costates is None else self.costates.abs().sum(2))

    def gradient(self, point: Matrix) -> Matrix:
        """Of the smooth part, without the cost."""
        return self.slope - self._apply(point - self.origin)

    def value(self, point: Matrix) -> Float[Tensor, " stage"]:
        """f, 0 at the origin."""
        change = point - self.origin
        smooth = ((self.slope - 0.5 * self._apply(change)) * change).sum((1, 2))
        return smooth - self.cost(point).sum((1, 2)) + self.cost(self.origin).sum((1, 2))

    def better(self, first: Matrix, second: Matrix) -> Matrix:
        """Stage by stage the second point where it is better, else the first."""
        return torch.where((self.value(second) > self.value(first))[:, None, None], second, first)

    def control(self, point: Matrix) -> Controls:
        """The control vectors; an eliminated bias is set to its optimum."""
        form, weight = self.form, point[..., :self.width]
        old_weight, old_bias = form.matrices(self.group.control)
        if self.with_bias or not form.bias:
            return form.control(weight, point[..., -1] if self.with_bias else old_bias)
        moved = torch.einsum("nij,nj->ni", weight - old_weight, self.moments.input_mean)
        slope = self.moments.bias_gradient - self.rho_state * moved - self.cost.quadratic * old_bias
        return form.control(weight, old_bias + slope / (self.rho_state + self.cost.quadratic))

    def _apply(self, change: Matrix) -> Matrix:
        result = change @ self.inputs
        if self.costates is not None:
            result[..., :self.width] += self.form.by_output(self.form.by_channel(change[..., :self.width])
                                                            @ self.costates)
        return result

    def _curvature(self, inputs: Tensor, costates: Tensor | None) -> Matrix:
        result = inputs.unsqueeze(1).expand(self.origin.shape)
        if costates is None:
            return result
        channels = self.width // self.form.map.taps
        result = result.clone()
        result[..., :self.width] += self.form.by_output(costates.unsqueeze(1).expand(-1, channels, -1))
        return result


Argmax = Callable[[ConstrainedQuadratic], Matrix]
"""A point of the sets with f not lower than at the warm start."""


@dataclass
class SetModel:
    """A HamiltonianModel of equal affine stages over sets of matrices, from their moments.

    theta, bias_theta: as in ConstrainedQuadratic. argmax: how its model at some penalties is maximized.
    """

    group: StageGroup
    moments: StageMoments
    cost: SeparableCost
    theta: MatrixSet | None
    bias_theta: MatrixSet | None
    argmax: Argmax
    evaluations: int = 0

    def maximize(self, penalties: Penalties) -> Controls:
        """H~ not lower than at the start."""
        model = self.at(penalties)
        return model.control(self.argmax(model))

    def measure(self, controls: Controls) -> Measures:
        """Exact, from the moments."""
        stage, old = self.group.stage, self.group.control
        assert stage.affine is not None
        linear, state, costate = quadratic_forms(stage.affine, self.moments,
                                                 *stage.affine.matrices(controls - old))
        return Measures(linear - stage.cost(controls) + stage.cost(old), state, costate)

    def at(self, penalties: Penalties) -> ConstrainedQuadratic:
        """The model. NoMaximumError where it has none."""
        form = self.group.stage.affine
        assert form is not None
        weight, bias = form.matrices(self.group.control)
        rho, moments, decay = penalties.rho_state, self.moments, self.cost.quadratic
        own = penalties.rho_control / moments.positions
        eliminated = form.bias and self.bias_theta is None and self.cost.smooth and own == 0
        if form.bias and self.bias_theta is None and rho + own == 0 and decay == 0:
            raise NoMaximumError(f"{self.group.stage.name}: H has no maximum over the free bias without a "
                                 "state penalty or a quadratic running cost; use rho_state > 0, or a set for "
                                 "the bias")
        absorbed = rho / (rho + decay) if eliminated else 0.0
        mean = moments.input_mean
        protects = self.group.protects(penalties.everywhere)
        costates = None
        if penalties.rho_costate and protects.any():
            each = protects.repeat_interleave(len(moments.costates) // len(protects)).view(-1, 1, 1)
            costates = penalties.rho_costate * each * moments.costates
        inputs = rho * (moments.inputs + (1 - absorbed) * mean.unsqueeze(2) * mean.unsqueeze(1))
        slope, origin = moments.gradient, weight
        warm, warm_bias = form.matrices(self.group.start)
        if eliminated:
            slope = slope - absorbed * (moments.bias_gradient - decay * bias).unsqueeze(2) * mean.unsqueeze(1)
        elif form.bias:
            slope = torch.cat([slope, moments.bias_gradient.unsqueeze(2)], 2)
            origin = torch.cat([weight, bias.unsqueeze(2)], 2)
            warm = torch.cat([warm, warm_bias.unsqueeze(2)], 2)
            edge = rho * mean.unsqueeze(2)
            corner = torch.full_like(edge[:, :1], rho)
            inputs = torch.cat([torch.cat([inputs, edge], 2), torch.cat([edge.mT, corner], 2)], 1)
        if own:
            inputs = inputs + own * torch.eye(inputs.shape[-1], dtype=inputs.dtype, device=inputs.device)
        return ConstrainedQuadratic(self.group, origin, warm, slope, inputs, costates, self.cost, self.theta,
                                    self.bias_theta, form.bias and not eliminated, moments, rho)


def set_model(group: StageGroup, method: str, argmax: Argmax) -> SetModel:
    """Of a group of affine stages over sets of matrices; ProblemError, naming the stage, for others."""
    stage, theta, bias_theta = group.stage, None, None
    if stage.affine is None:
        raise ProblemError(f"{method} needs a stage that is affine in its control, but {stage.name} is not "
                           "known to be: split it at its affine map (split_euler)")
    if stage.affine.map.joint or stage.affine.map.one_hot:
        raise ProblemError(f"{method} takes matrices whose inputs are numbers, but {stage.name} is "
                           f"{stage.affine.map.kind}: leave its weights in R^p")
    if isinstance(stage.admissible, PerParameter):
        theta, bias_theta, *_ = *stage.admissible.sets, None
    elif not stage.admissible.unconstrained:
        raise ProblemError(f"{method} takes sets of matrices such as Binary() or Box(-1, 1), but "
                           f"{stage.name} has the admissible set {stage.admissible!r}")
    moments = stage_moments(stage.affine, group.states, group.next_costates)
    return SetModel(group, moments, separable_cost(stage, moments.positions, method), theta,
                    bias_theta, argmax)
