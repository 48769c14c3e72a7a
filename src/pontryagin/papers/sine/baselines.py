"""What the maximum principle is compared with on the sine: gradient methods, and methods for small full-batch
problems."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vmap

from pontryagin.papers.sine.task import SineTask, predict, total
from pontryagin.run.errors import need


def sgd(task: SineTask, iterations: int, rate: float, observe: Callable[..., bool]) -> None:
    """Gradient descent on the full batch, no momentum, as in the paper."""
    _descend(task, torch.optim.SGD, iterations, rate, observe)


def adagrad(task: SineTask, iterations: int, rate: float, observe: Callable[..., bool]) -> None:
    """torch.optim.Adagrad."""
    _descend(task, torch.optim.Adagrad, iterations, rate, observe)


def adam(task: SineTask, iterations: int, rate: float, observe: Callable[..., bool]) -> None:
    """torch.optim.Adam with its default moments."""
    _descend(task, torch.optim.Adam, iterations, rate, observe)


def _descend(task: SineTask, make: Callable[..., torch.optim.Optimizer], iterations: int, rate: float,
             observe: Callable[..., bool]) -> None:
    """All controls are one tensor, so that the optimizer's own cost is as small as it can be."""
    theta = task.start().requires_grad_()
    optimizer = make([theta], lr=rate)
    for _ in range(iterations):
        optimizer.zero_grad()
        task.loss(theta).backward()
        optimizer.step()
        if not observe(theta.detach().clone(), 1, None):
            return


def lbfgs(task: SineTask, iterations: int, rate: float, observe: Callable[..., bool]) -> None:
    """scipy's L-BFGS-B on all 600 controls at once, its defaults but for the tolerances, which are off."""
    minimize, evaluations = need("scipy.optimize", "method lbfgs").minimize, [0]

    def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
        evaluations[0] += 1
        theta = torch.from_numpy(flat).view_as(start).requires_grad_()
        loss = task.loss(theta)
        gradient, = torch.autograd.grad(loss, theta)
        return loss.item(), gradient.flatten().numpy()

    def callback(flat: np.ndarray) -> None:
        spent, evaluations[0] = evaluations[0], 0
        if not observe(torch.from_numpy(flat.copy()).view_as(start), spent, None):
            raise StopIteration

    start = task.start()
    minimize(evaluate, start.flatten().numpy(), jac=True, method="L-BFGS-B", callback=callback,
             options={"maxiter": iterations, "maxfun": 100 * iterations, "ftol": 0.0, "gtol": 0.0})


def levenberg_marquardt(task: SineTask, iterations: int, rate: float, observe: Callable[..., bool]) -> None:
    """theta - (J^T J / K + lambda I)^-1 J^T r / K, lambda divided by 3 after a decrease and multiplied by 4
    otherwise.

    J (sample, 600) is the Jacobian of the predictions, r the residuals. An evaluation is a forward and
    backward pass of the network, so J counts as one and a trial as one. scipy's least_squares has no access
    to its iterates.
    """
    inputs, target = task.train
    theta, damping = task.start().flatten(), 1e-2

    def prediction(flat: Tensor, x: Tensor) -> Tensor:
        return total(predict(flat.view(-1, 30), x.unsqueeze(0))).squeeze(0)

    jacobian = vmap(grad(prediction), in_dims=(None, 0))
    loss = task.loss(theta.view(-1, 30)).item()
    for _ in range(iterations):
        rows = jacobian(theta, inputs)
        residual = total(predict(theta.view(-1, 30), inputs)) - target
        system, right = rows.mT @ rows / len(target), rows.mT @ residual / len(target)
        evaluations, accepted = 1, False
        while not accepted and damping < 1e12:
            factor = torch.linalg.cholesky(system + damping * torch.eye(len(theta), dtype=theta.dtype))
            trial = theta - torch.cholesky_solve(right.unsqueeze(1), factor).squeeze(1)
            trial_loss = task.loss(trial.view(-1, 30)).item()
            evaluations, accepted = evaluations + 1, trial_loss < loss
            damping = max(damping / 3, 1e-12) if accepted else damping * 4
        if not accepted:
            return
        theta, loss = trial, trial_loss
        if not observe(theta.view(-1, 30), evaluations, None):
            return
