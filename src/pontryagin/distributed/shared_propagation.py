"""States and costates of a batch, every rank propagating its share of the samples."""

import torch

from pontryagin.distributed.agreement import all_or_none
from pontryagin.distributed.assignment import share
from pontryagin.distributed.communicator import Communicator
from pontryagin.problem import ControlProblem, Controls
from pontryagin.trajectory import Propagation, Trajectory


def problem_share(problem: ControlProblem, communicator: Communicator) -> ControlProblem:
    """The problem on this rank's samples; without any, on the first, for its shapes: it counts nowhere."""
    if communicator.size == 1:
        return problem
    rows = share(problem.samples, communicator.rank, communicator.size)
    rows = rows if rows.start < rows.stop else slice(0, 1)
    return problem.on(problem.initial_state[rows], problem.target[rows])


class SharedPropagation:
    """The forward pass of all samples at some controls; on every rank J and loss are the whole batch's."""

    def __init__(self, communicator: Communicator, problem: ControlProblem, local: ControlProblem,
                 controls: Controls) -> None:
        """communicator: the ranks that share the samples; local: the problem on this rank's."""
        self.communicator, self.problem, self.controls = communicator, problem, controls
        rows = share(problem.samples, communicator.rank, communicator.size)
        self.samples = rows.stop - rows.start
        self._local = Propagation(local, controls)
        self._trajectory: Trajectory | None = None
        total = torch.tensor(self._local.total if self.samples else 0.0, dtype=torch.float64)
        self.loss = communicator.sum(total).item() / problem.samples
        self.objective, self.epsilon = self.loss + self._local.running_cost, self._local.epsilon

    def trajectory(self) -> Trajectory:
        """States, costates and terminal costs of this rank's samples; computed once.

        Raises NonFiniteError on every rank when those of any rank are not finite.
        """
        if self._trajectory is None:
            with all_or_none(self.communicator):
                found = self._local.trajectory()
            if self.samples != len(found.terminal):
                found = Trajectory(tuple(x[:0] for x in found.states), tuple(p[:0] for p in found.costates),
                                   found.terminal[:0])
            self._trajectory = found
        return self._trajectory
