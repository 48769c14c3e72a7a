"""One step of gradient ascent on the Hamiltonian: with it, MSA is gradient descent with back-propagation."""

from dataclasses import dataclass
from math import isfinite

from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap

from pontryagin.hamiltonian import Penalties, hamiltonian
from pontryagin.maximizer.protocol import EvaluatedModel
from pontryagin.problem import ProblemError
from pontryagin.trajectory import StageGroup


@dataclass(frozen=True)
class GradientAscent:
    """theta + learning_rate * mean_i grad_theta H_n, projected on Theta. ([LCTE] Proposition 5.)

    The penalties have no gradient at the current controls, so they change no direction. Without them it is
    exactly one step of gradient descent on J; with them the step is halved until H~ does not fall.

    learning_rate: eta > 0, finite, in units of theta^2 / J; no default, for it depends on the problem. The
        longest step where there is a penalty.
    """

    learning_rate: float

    def __post_init__(self) -> None:
        if not (isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ProblemError(f"learning_rate: expected a finite number > 0, found {self.learning_rate}")

    def model(self, group: StageGroup) -> "GradientModel":
        """One gradient of the mean Hamiltonian for each stage."""
        return GradientModel(group, self.learning_rate)


class GradientModel(EvaluatedModel):
    """H to first order at the start."""

    def __init__(self, group: StageGroup, learning_rate: float) -> None:
        super().__init__(group, evaluations=1)
        self.learning_rate, self.gradient = learning_rate, hamiltonian_gradient(group)

    def maximize(self, penalties: Penalties) -> Float[Tensor, "stage control"]:
        """The projected gradient step, with a penalty halved until H~ is not lower than at the start."""
        if penalties.step_scale or penalties.rho_costate:
            return self.ascending(self.learning_rate * self.gradient, penalties)
        return self.group.stage.admissible.project(self.group.start + self.learning_rate * self.gradient)


def hamiltonian_gradient(group: StageGroup) -> Float[Tensor, "stage control"]:
    """mean over samples of grad_theta H_n at the start of each stage: minus the gradient of J."""

    def mean(control: Tensor, state: Tensor, next_costate: Tensor) -> Tensor:
        return hamiltonian(group.stage, control, state, next_costate).mean()

    return vmap(grad(mean))(group.start, group.state, group.next_costate)
