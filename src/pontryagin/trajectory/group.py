"""Equal stages together, with everything that their maximization needs and nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pontryagin.problem import ControlProblem, Controls, Stage
from pontryagin.trajectory.propagate import Trajectory

_Each = tuple[Tensor, ...]
ByTime = Sequence[Tensor] | Mapping[int, Tensor]
"""x_n or p_n by n."""


@dataclass(frozen=True)
class StageGroup:
    """Stages that compute the same function, each at its own control, states and costates.

    For the stage with index n: states x_n, next_states x_{n+1} = g_n(x_n, theta_n), next_costates p_{n+1}
    and costates p_n = grad_x H_n at theta_n. `start` is where an iterative argmax begins: theta_n, or
    a perturbation of it. `upstream`: of each stage, whether an earlier one has a control. The stacked forms
    carry the leading axis `stage`.
    """

    stage: Stage
    indices: tuple[int, ...]
    control: Float[Tensor, "stage control"]
    start: Float[Tensor, "stage control"]
    states: _Each
    next_states: _Each
    costates: _Each
    next_costates: _Each
    upstream: tuple[bool, ...]

    @cached_property
    def state(self) -> Shaped[Tensor, "stage sample ..."]:
        """x_n, stacked."""
        return torch.stack(self.states)

    @cached_property
    def next_state(self) -> Float[Tensor, "stage sample ..."]:
        """x_{n+1}, stacked."""
        return torch.stack(self.next_states)

    @cached_property
    def costate(self) -> Float[Tensor, "stage sample ..."]:
        """p_n, stacked."""
        return torch.stack(self.costates)

    @cached_property
    def next_costate(self) -> Float[Tensor, "stage sample ..."]:
        """p_{n+1}, stacked."""
        return torch.stack(self.next_costates)

    @cached_property
    def costate_squares(self) -> Float[Tensor, " stage"]:
        """Mean over samples of |p_{n+1}|^2, float64; of an affine stage the part that its outputs see."""
        form = self.stage.affine
        seen = [costate if form is None else form.outputs(costate) for costate in self.next_costates]
        samples = self.next_costates[0].shape[0]
        return torch.stack([one.square().sum().double() / samples for one in seen])

    @cached_property
    def samples(self) -> int:
        """The number of samples, K."""
        return int(self.next_states[0].shape[0])

    def protects(self, everywhere: bool) -> Float[Tensor, " stage"]:
        """1 where a costate penalty has something to protect, 0 where no control lies upstream and so the
        state cannot change; everywhere: 1 at all stages."""
        return torch.tensor([float(everywhere or any_before) for any_before in self.upstream],
                            dtype=self.control.dtype, device=self.control.device)

    @property
    def data(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x_n, x_{n+1}, p_n, p_{n+1}, stacked: the order that hamiltonian.augmented takes."""
        return self.state, self.next_state, self.costate, self.next_costate

    def singles(self) -> Iterator["StageGroup"]:
        """The same stages as groups of one."""
        for n in range(len(self.indices)):
            yield replace(self, **{one.name: getattr(self, one.name)[n:n + 1]
                                   for one in fields(self) if one.name != "stage"})


def group_stages(problem: ControlProblem, controls: Controls, trajectory: Trajectory,
                 starts: Controls | None = None) -> list[StageGroup]:
    """The stages that have a control, equal ones together, at this trajectory."""
    return [stage_group(problem, indices, controls, trajectory.states, trajectory.costates, starts)
            for indices in problem.groups]


def stage_group(problem: ControlProblem, indices: tuple[int, ...], controls: Controls, states: ByTime,
                costates: ByTime, starts: Controls | None = None) -> StageGroup:
    """Some equal stages with x_n, x_{n+1}, p_n, p_{n+1}, which are all that is looked up."""
    starts = controls if starts is None else starts
    control = torch.stack([controls[n] for n in indices])
    start = control if starts is controls else torch.stack([starts[n] for n in indices])
    here, there, p_here, p_there = (tuple(values[n + later] for n in indices)
                                    for values in (states, costates) for later in (0, 1))
    return StageGroup(problem.stages[indices[0]], indices, control, start, here, there, p_here, p_there,
                      problem.upstream(indices))
