"""The Hamiltonian, the augmented Hamiltonian and the feasibility errors of one stage.

Shapes: x, p of n: (sample, *state); x, p of n+1: (sample, *next_state); theta: (control,).
All of these are per sample or means over samples, and differentiable in theta.
"""

from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from pontryagin.problem import ProblemError, Stage
from pontryagin.trajectory import StageGroup

Control = Float[Tensor, " control"]
PerSample = Float[Tensor, " sample"]


@dataclass(frozen=True)
class Penalties:
    """rho_state weighs the error of the states, rho_costate that of the costates, rho_control the change
    |theta - theta_old|^2 of the control itself; all are >= 0.

    The first two apply to means over samples with unscaled costates, so they do not depend on the batch
    size. For residual stages they are Algorithm 2's, the ones that multiply |g - x_{n+1}|^2 (delta times
    Algorithm 3's). rho_control is the only penalty of the sequential quadratic Hamiltonian method
    (Breitenbach and Borzi 2019); Algorithm 2 has none.

    everywhere: whether the costate penalty counts at all stages, as in Algorithm 2. Otherwise it is left out
    of the first stage that has a control: in Lemma 2 the change of p_n is multiplied by that of x_n, and
    without a control before stage n its state does not change.
    """

    rho_state: float
    rho_costate: float
    rho_control: float = 0.0
    everywhere: bool = False

    def __post_init__(self) -> None:
        for name in ("rho_state", "rho_costate", "rho_control"):
            rho = getattr(self, name)
            if not (isfinite(rho) and rho >= 0):
                raise ProblemError(f"{name}: expected a finite penalty >= 0, found {rho}")

    @property
    def step_scale(self) -> float:
        """What a step is divided by: rho_state, or rho_control where there is no rho_state."""
        return self.rho_state or self.rho_control

    @property
    def state(self) -> float:
        """rho_state."""
        return self.rho_state

    @property
    def costate(self) -> float:
        """rho_costate."""
        return self.rho_costate


def paper_penalties(rho: float, samples: int) -> Penalties:
    """The penalties that equal the rho of [LCTE]'s experiments on a batch of `samples`.

    There costates come from the batch-mean loss (so they are 1/K of ours) and H and penalties are sums over
    the batch. Dividing that H~ by the same factor gives rho_state = K rho and rho_costate = rho / K.
    """
    if samples < 1:
        raise ProblemError(f"expected at least one sample, found {samples}")
    return Penalties(samples * rho, rho / samples, everywhere=True)


def hamiltonian(stage: Stage, control: Control, state: Tensor, next_costate: Tensor) -> PerSample:
    """H_n(x, p, theta) = p . g_n(x, theta) - delta L(theta), for each sample. ([LCTE] equation 13.)"""
    return _inner(next_costate, stage(state, control)) - stage.cost(control)


def costate(stage: Stage, control: Control, state: Tensor, next_costate: Tensor) -> Tensor:
    """grad_x H_n(x, p, theta): one step of the costate pass, for each sample."""
    return _pull_back(stage, control, state, next_costate)[1]


def state_error(stage: Stage, control: Control, state: Tensor, next_state: Tensor) -> PerSample:
    """|x_{n+1} - g_n(x_n, theta)|^2, the squared change of the state that a new control causes."""
    return _square(next_state - stage(state, control))


def costate_error(stage: Stage, control: Control, state: Tensor, old_costate: Tensor,
                  next_costate: Tensor) -> PerSample:
    """|p_n - grad_x H_n(x_n, p_{n+1}, theta)|^2, the squared change of the costate."""
    return _square(old_costate - costate(stage, control, state, next_costate))


def augmented(stage: Stage, control: Control, data: tuple[Tensor, Tensor, Tensor, Tensor],
              penalties: Penalties, old: Control | None = None,
              protects: Float[Tensor, ""] | float = 1.0) -> Float[Tensor, ""]:
    """H~_n(theta), the mean over samples of
    H_n - rho_state/2 |x_{n+1} - g_n|^2 - rho_costate/2 |p_n - grad_x H_n|^2, less rho_control/2
    |theta - theta_old|^2. ([LCTE] (24), Algorithm 2; the last term: Breitenbach and Borzi 2019.)

    data: x_n, x_{n+1}, p_n, p_{n+1}. old: theta_old, needed with rho_control > 0. protects: 1, or 0 where
    the costate penalty has nothing to protect (StageGroup.protects).
    """
    state, next_state, old_costate, next_costate = data
    if penalties.rho_costate == 0:
        image = stage(state, control)
        change: Tensor | float = 0.0
    else:
        image, new_costate = _pull_back(stage, control, state, next_costate)
        change = _square(old_costate - new_costate)
    value = _inner(next_costate, image) - 0.5 * penalties.rho_state * _square(next_state - image)
    value = (value - 0.5 * penalties.rho_costate * protects * change).mean() - stage.cost(control)
    if penalties.rho_control == 0 or old is None:
        return value
    return value - 0.5 * penalties.rho_control * (control - old).square().sum()


class Measures(NamedTuple):
    """What a new control does to its stage, means over samples, one number a stage.

    gain: Delta H_n = H_n(theta_new) - H_n(theta_old), states and costates fixed.
    state_error, costate_error: the feasibility errors at theta_new.
    """

    gain: Float[Tensor, " stage"]
    state_error: Float[Tensor, " stage"]
    costate_error: Float[Tensor, " stage"]


@torch.no_grad()
def measure(group: StageGroup, controls: Float[Tensor, "stage control"]) -> Measures:
    """Gain and feasibility errors of new controls, by one evaluation of g and grad_x H of each stage."""

    def one(new: Tensor, old: Tensor, x: Tensor, x_next: Tensor, p: Tensor, p_next: Tensor
            ) -> tuple[Tensor, ...]:
        image, pulled = _pull_back(group.stage, new, x, p_next)
        gain = _inner(p_next, image - x_next).mean() - group.stage.cost(new) + group.stage.cost(old)
        return gain, _square(x_next - image).mean(), _square(p - pulled).mean()

    return Measures(*vmap(one)(controls, group.control, *group.data))


def _pull_back(stage: Stage, control: Control, state: Tensor, next_costate: Tensor) -> tuple[Tensor, Tensor]:
    """g(x, theta) and (dg/dx)^T p; samples are independent, so one product serves all of them."""
    if not state.is_floating_point():
        return stage(state, control), torch.zeros_like(state, dtype=next_costate.dtype)
    image, transposed, *_ = torch.func.vjp(lambda x: stage(x, control), state)
    return image, transposed(next_costate)[0]


def _inner(first: Tensor, second: Tensor) -> PerSample:
    return (first * second).flatten(1).sum(1)


def _square(difference: Tensor) -> PerSample:
    return difference.square().flatten(1).sum(1)
