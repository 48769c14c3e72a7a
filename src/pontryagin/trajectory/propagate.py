"""States forward and costates backward through an explicit control problem."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pontryagin.problem import ControlProblem, Controls, NonFiniteError


@dataclass(frozen=True)
class Trajectory:
    """x_0 ... x_N and p_0 ... p_N, one row a sample, and Phi_i of each sample. Costates are unscaled."""

    states: tuple[Shaped[Tensor, "sample ..."], ...]
    costates: tuple[Shaped[Tensor, "sample ..."], ...]
    terminal: Float[Tensor, " sample"]


class Propagation:
    """The forward pass at some controls; `trajectory()` adds the costate pass.

    It keeps the graph of the forward pass, so that an accepted trial is not propagated twice. total: the sum
    of Phi_i over samples, loss: their mean, running_cost: sum_n delta_n L_n, objective: J; epsilon: the
    relative rounding of the dtype in which they are summed.
    """

    def __init__(self, problem: ControlProblem, controls: Controls) -> None:
        self.problem = problem
        self.controls = controls
        with torch.enable_grad():
            state = problem.initial_state.detach()
            state = state.requires_grad_() if state.is_floating_point() else state
            self._states = [state]
            for stage, control in zip(problem.stages, controls, strict=True):
                state = stage(state, control.detach())
                if not state.requires_grad:  # the stage forgets its state: costates start anew here
                    state = state.detach().requires_grad_()
                self._states.append(state)
            self._terminal = problem.terminal_cost(state, problem.target)
            self._total = self._terminal.sum()
            if not self._total.requires_grad:  # a cost that no state changes: costates are 0
                self._total.requires_grad_()
        self.epsilon = torch.finfo(self._total.dtype).eps
        with torch.no_grad():
            self.total = self._total.item()
            self.running_cost = problem.running_cost(controls).item()
        self.loss = self.total / problem.samples
        self.objective = self.loss + self.running_cost

    def trajectory(self) -> Trajectory:
        """p_N = -grad Phi, p_n = +grad_x H_n(x_n, p_{n+1}, theta_n), by one backward pass; called once.

        Raises NonFiniteError, naming the first stage whose state or the last whose costate is not finite.
        """
        if not torch.isfinite(self._total):
            raise NonFiniteError(self._describe_non_finite())
        known = [state for state in self._states if state.is_floating_point()]
        costates = torch.autograd.grad(self._total, known, -torch.ones_like(self._total), allow_unused=True,
                                       materialize_grads=True)
        if len(known) < len(self._states):  # indices: nothing changes with them
            costates = (torch.zeros_like(self._states[0], dtype=known[0].dtype), *costates)
        # an infinite sum is a hint only, for large finite numbers may overflow in it
        if not torch.stack([costate.sum() for costate in costates]).isfinite().all():
            self._refuse_non_finite(costates)
        return Trajectory(tuple(state.detach() for state in self._states), costates, self._terminal.detach())

    def _refuse_non_finite(self, costates: Sequence[Tensor]) -> None:
        wrong = [n for n, costate in enumerate(costates) if not costate.isfinite().all()]
        if wrong:
            raise NonFiniteError(f"the costate at state {wrong[-1]} of {len(costates) - 1} holds NaN or "
                                 "infinite values, though the states are finite: a stage's derivative does "
                                 "not exist or overflows there")

    def _describe_non_finite(self) -> str:
        for number, (stage, state) in enumerate(zip(self.problem.stages, self._states[1:], strict=True)):
            if not state.isfinite().all():
                return (f"the states after stage {number} ({stage.name}) hold NaN or infinite values: the "
                        "controls left the region where the dynamics can be computed; use a larger rho or "
                        "smaller initial controls")
        return ("the terminal cost is NaN or infinite though all states are finite: check targets and "
                "terminal cost")


def propagate(problem: ControlProblem, controls: Controls) -> Trajectory:
    """States, costates and terminal costs at these controls: one forward and one backward pass.

    Costates are per sample and unscaled: p_N^i = -grad Phi_i(x_N^i), not divided by the batch size.
    Raises NonFiniteError as Propagation.trajectory does.
    """
    return Propagation(problem, controls).trajectory()


@torch.no_grad()
def terminal_costs(problem: ControlProblem, controls: Controls) -> Float[Tensor, " sample"]:
    """Phi_i(x_N^i) of each sample: the forward pass alone."""
    state = problem.initial_state
    for stage, control in zip(problem.stages, controls, strict=True):
        state = stage(state, control)
    return problem.terminal_cost(state, problem.target)
