"""The baseline: scipy's L-BFGS-B on all controls, by direct single shooting on the same gradients."""

from collections.abc import Callable

import numpy as np
import torch

from pontryagin.problem import ControlProblem, Controls
from pontryagin.run.errors import need
from pontryagin.update.newton import entry_bounds


def evaluate(problem: ControlProblem, flat: torch.Tensor) -> tuple[float, torch.Tensor]:
    """J and its gradient: a forward pass through all stages and back-propagation."""
    leaf = flat.clone().requires_grad_()
    state = problem.initial_state
    for stage, control in zip(problem.stages, leaf.split([stage.size for stage in problem.stages]),
                              strict=True):
        state = stage(state, control)
    cost = problem.terminal_cost(state, problem.target).mean()
    gradient, = torch.autograd.grad(cost, leaf)
    return cost.item(), gradient


def lbfgs_b(problem: ControlProblem, controls: Controls, evaluations: Callable[[int], None] = lambda n: None
            ) -> tuple[Controls, int]:
    """The controls that scipy ends at, and its iterations; evaluations: told how many there were."""
    minimize = need("scipy.optimize", "reproduce control").minimize
    bounds = torch.stack(entry_bounds(problem), 1).tolist()
    like = torch.cat(controls)

    def both(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = evaluate(problem, torch.from_numpy(point))
        return value, gradient.numpy()

    found = minimize(both, like.numpy(), jac=True, method="L-BFGS-B", bounds=bounds,
                     options={"maxiter": 2000, "maxfun": 4000})
    evaluations(found.nfev)
    return torch.from_numpy(found.x).split([stage.size for stage in problem.stages]), found.nit
