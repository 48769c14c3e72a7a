"""What every maximizer is: a way to solve theta_n = argmax over Theta of the augmented Hamiltonian."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from pontryagin.affine import StageMoments
from pontryagin.hamiltonian import Measures, Penalties, augmented, measure
from pontryagin.problem import ProblemError
from pontryagin.trajectory import StageGroup

Controls = Float[Tensor, "stage control"]
_HALVINGS = 30
"""2^-30 of a step is below the rounding of float32 controls: nothing shorter is worth a try."""


@runtime_checkable
class HamiltonianModel(Protocol):
    """H~ of a group of equal stages, at fixed states and costates, ready to be maximized.

    What does not depend on the penalties (moments, factorizations) is computed once, so that a rejected
    iteration can maximize again with other penalties at little cost.
    """

    group: StageGroup
    evaluations: int
    """How often the dynamics of every stage of the group have been evaluated so far."""

    def maximize(self, penalties: Penalties) -> Float[Tensor, "stage control"]:
        """New controls with H~ not lower than at `group.start`, each stage alone."""

    def measure(self, controls: Float[Tensor, "stage control"]) -> Measures:
        """Gain and feasibility errors of new controls."""


@runtime_checkable
class QuadraticModel(HamiltonianModel, Protocol):
    """A model whose argmax is linear in the gradient: theta* - theta = solve(gradient, penalties)."""

    gradient: Float[Tensor, "stage control"]
    """mean over samples of grad_theta H at the current controls."""

    def solve(self, gradient: Float[Tensor, "stage control"], penalties: Penalties) -> Float[Tensor,
                                                                                             "stage control"]:
        """The change of controls that maximizes <gradient, change> minus the penalties: the inverse
        Hessian of -H~ times the gradient."""


@runtime_checkable
class Maximizer(Protocol):
    """A method of maximization. One file a method; new ones need only this."""

    def model(self, group: StageGroup) -> HamiltonianModel:
        """The model of H~ for these stages. ProblemError when the method cannot take them."""


@runtime_checkable
class MomentMaximizer(Maximizer, Protocol):
    """A maximizer of affine stages that needs only moments of states and costates, means over samples.

    They are small and those of parts of a batch can be merged, so processes send them instead of states. Its
    models are QuadraticModels.
    """

    def moments(self, group: StageGroup) -> StageMoments:
        """Of a group at its trajectory. ProblemError when the method cannot take the stages."""

    def model_of_moments(self, group: StageGroup, moments: StageMoments) -> QuadraticModel:
        """The model from moments; the group's states and costates are not read."""


class EvaluatedModel:
    """What models have in common that evaluate their stages, each evaluation counted."""

    def __init__(self, group: StageGroup, evaluations: int = 0) -> None:
        self.group, self.evaluations = group, evaluations

    def measure(self, controls: Float[Tensor, "stage control"]) -> Measures:
        self.evaluations += 1
        return measure(self.group, controls)

    def augmented(self, penalties: Penalties) -> Callable[..., Tensor]:
        """H~ of one stage of the group as a function of its control and then its part of `arguments`, for
        vmap and grad."""
        return lambda control, old, protects, *data: augmented(self.group.stage, control, data, penalties,
                                                               old, protects)

    def arguments(self, penalties: Penalties) -> tuple[Tensor, ...]:
        """What H~ takes beside the control, stacked over stages."""
        return self.group.control, self.group.protects(penalties.everywhere), *self.group.data

    def values(self, controls: Controls, penalties: Penalties) -> Float[Tensor, " stage"]:
        """H~ of each stage, counted."""
        self.evaluations += 1
        with torch.no_grad():
            return vmap(self.augmented(penalties))(controls, *self.arguments(penalties))

    def ascending(self, change: Controls, penalties: Penalties) -> Controls:
        """Start + change, projected on Theta, the change halved stage by stage until H~ is not lower than at
        the start, whose H~ is what a change of 0 has."""
        start, project = self.group.start, self.group.stage.admissible.project
        value, length = self.values(start, penalties), torch.ones_like(change[:, 0])
        trial = project(start + change)
        for _ in range(_HALVINGS):
            fell = ~(self.values(trial, penalties) >= value)
            if not fell.any():
                return trial
            length = torch.where(fell, length / 2, length)
            trial = project(start + length[:, None] * change)
        return torch.where(fell[:, None], start, trial)


def require_unconstrained(group: StageGroup, method: str) -> None:
    """Refuse an admissible set that a method would leave."""
    if not group.stage.admissible.unconstrained:
        raise ProblemError(f"{method} maximizes over R^p, but {group.stage.name} has the admissible set "
                           f"{group.stage.admissible!r}; use a maximizer made for that set")
