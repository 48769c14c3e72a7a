"""The methods that are compared on the sine, by the name that options, tables and figures use: the maximum
principle, gradient methods, and methods for small full-batch problems."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vmap

from pontryagin.maximizer import LBFGS, ClosedForm
from pontryagin.papers.sine.task import SineTask, Theta, total
from pontryagin.problem import refine
from pontryagin.run.errors import ExperimentError, need
from pontryagin.update import (
    MSA,
    AcceptReject,
    ExtendedMSA,
    IterationRecord,
    PaperPenalty,
    Perturbation,
    Plain,
    Secant,
)

Observe = Callable[[Theta, int, IterationRecord | None], bool]
"""Called after each iteration with the controls, the evaluations since the last call (one is a forward pass
of the network, with or without a backward pass) and the record, if there is one. False: stop."""

COARSE = 100
"""Iterations on half the steps, at most: where these have not come to --coarse-loss, more will not either."""


@dataclass(frozen=True)
class Method:
    """How a method is run on a task. rates: the learning rates to choose from, none if it has no rate.
    longest: more iterations are never run, because nothing new happens. needs: a package of an extra."""

    name: str
    label: str
    run: Callable[[SineTask, int, float, Observe], None]
    rates: tuple[float, ...] = ()
    longest: int | None = None
    needs: str = ""


def _msa(task: SineTask, iterations: int, rate: float, observe: Observe) -> None:
    """Algorithm 1. The argmax of H without penalties is bounded by the iterations of L-BFGS."""
    _iterate(MSA(task.problem(), task.start().unbind(), maximizer=LBFGS(task.setup.inner_iterations)),
             iterations, observe)


def _emsa_paper(task: SineTask, iterations: int, rate: float, observe: Observe) -> None:
    """Algorithm 2 as in the paper: every argmax taken."""
    setup = task.setup
    noise = Perturbation(setup.argmax_noise, task.seed, setup.distribution) if setup.argmax_noise else None
    _iterate(ExtendedMSA(task.problem(), task.start().unbind(), maximizer=LBFGS(setup.inner_iterations),
                         acceleration=Plain(), penalty=PaperPenalty(setup.rho), perturbation=noise),
             iterations, observe)


def _emsa(task: SineTask, iterations: int, rate: float, observe: Observe) -> None:
    """The default: closed form at the affine maps, accept/reject, momentum."""
    _iterate(ExtendedMSA(task.split_problem(), _split_controls(task.start())), iterations, observe)


def _emsa_multilevel(task: SineTask, iterations: int, rate: float, observe: Observe) -> None:
    """The default on half as many steps of twice the length, from every second layer's controls, until J is
    `coarse_loss`, and then with every step halved, states and penalty kept. What is observed of the coarse
    network are its controls on the whole one, and half an evaluation for each of its passes."""
    if task.setup.layers % 2:
        raise ExperimentError(f"method emsa-multilevel: expected an even number of layers, found "
                              f"{task.setup.layers}; choose another --layers, or leave it out of --methods")
    coarse = min(COARSE, iterations // 2)
    half = ExtendedMSA(task.split_problem(task.setup.layers // 2), _split_controls(task.start()[::2]))

    def prolonged(theta: Theta, evaluations: int, record: IterationRecord | None) -> bool:
        return observe(theta.repeat_interleave(2, 0), -(-evaluations // 2), record)

    spent = 0
    for record in half.iterate(coarse):
        spent += 1
        if not prolonged(_theta(half), record.evaluations, record):
            return
        if not record.accepted or record.objective_after <= task.setup.coarse_loss:
            break
    whole = ExtendedMSA(*refine(half.problem, half.controls, keep="states"), penalty=half.penalty)
    if observe(_theta(whole), 1, None):  # a pass of the whole network, as it has been prolonged
        _iterate(whole, iterations - spent - 1, observe)


def _emsa_secant(task: SineTask, iterations: int, rate: float, observe: Observe) -> None:
    """The closed form as the initial inverse Hessian of an L-BFGS over all stages."""
    _iterate(ExtendedMSA(task.split_problem(), _split_controls(task.start()),
                         maximizer=ClosedForm(damping=5e-2), penalty=AcceptReject(rho=1.0, restart=True),
                         acceleration=Secant()), iterations, observe)


def _iterate(solver: ExtendedMSA, iterations: int, observe: Observe) -> None:
    """Until the iterations are used up, the observer has seen enough (False), or no trial is accepted."""
    for record in solver.iterate(iterations):
        if not observe(_theta(solver), record.evaluations, record) or not record.accepted:
            break


def _theta(solver: ExtendedMSA) -> Theta:
    return torch.stack([control for control in solver.controls if control.numel()])


def _split_controls(theta: Theta) -> list[Tensor]:
    """Each affine stage is followed by a step without control."""
    return [control for row in theta for control in (row, theta.new_empty(0))]


def descend(controls: Sequence[Tensor], objective: Callable[[], Tensor],
            make: Callable[..., torch.optim.Optimizer], rate: float) -> Iterator[Tensor]:
    """Full-batch steps of a torch optimizer on leaf controls, without end: J before each step, when it has
    been taken."""
    optimizer = make([control for control in controls if control.numel()], lr=rate)
    while True:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        optimizer.step()
        yield loss


def _gradient(make: Callable[..., torch.optim.Optimizer], task: SineTask, iterations: int, rate: float,
              observe: Observe) -> None:
    """All controls are one tensor, so that the optimizer's own cost is as small as it can be."""
    theta = task.start().requires_grad_()
    steps = descend([theta], lambda: task.objective(theta), make, rate)
    for _ in zip(range(iterations), steps, strict=False):
        if not observe(theta.detach().clone(), 1, None):
            return


def _lbfgs(task: SineTask, iterations: int, rate: float, observe: Observe) -> None:
    """scipy's L-BFGS-B on all controls at once, its defaults but for the tolerances, which are off."""
    minimize, evaluations = need("scipy.optimize", "method lbfgs").minimize, [0]

    def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
        evaluations[0] += 1
        theta = torch.from_numpy(flat).view_as(start).requires_grad_()
        loss = task.objective(theta)
        gradient, = torch.autograd.grad(loss, theta)
        return loss.item(), gradient.flatten().numpy()

    def callback(flat: np.ndarray) -> None:
        spent, evaluations[0] = evaluations[0], 0
        if not observe(torch.from_numpy(flat.copy()).view_as(start), spent, None):
            raise StopIteration

    start = task.start()
    minimize(evaluate, start.flatten().numpy(), jac=True, method="L-BFGS-B", callback=callback,
             options={"maxiter": iterations, "maxfun": 100 * iterations, "ftol": 0.0, "gtol": 0.0})


def _levenberg_marquardt(task: SineTask, iterations: int, rate: float, observe: Observe) -> None:
    """theta - (J^T J / K + (reg/2 + lambda) I)^-1 (J^T r / K + reg/2 theta), lambda divided by 3 after a
    decrease and multiplied by 4 otherwise.

    J (sample, entry) is the Jacobian of the predictions, r the residuals. An evaluation is a forward and
    backward pass of the network, so J counts as one and a trial as one. scipy's least_squares has no access
    to its iterates.
    """
    inputs, target = task.train
    shape, weight = task.start().shape, 0.5 * task.setup.regularizer
    theta, damping = task.start().flatten(), 1e-2

    def prediction(flat: Tensor, x: Tensor) -> Tensor:
        return total(task.predict(flat.view(shape), x.unsqueeze(0))).squeeze(0)

    jacobian = vmap(grad(prediction), in_dims=(None, 0))
    eye, loss = torch.eye(len(theta), dtype=theta.dtype), task.objective(theta.view(shape)).item()
    for _ in range(iterations):
        rows = jacobian(theta, inputs)
        residual = total(task.predict(theta.view(shape), inputs)) - target
        system = rows.mT @ rows / len(target) + weight * eye
        right = rows.mT @ residual / len(target) + weight * theta
        evaluations, accepted = 1, False
        while not accepted and damping < 1e12:
            factor = torch.linalg.cholesky(system + damping * eye)
            trial = theta - torch.cholesky_solve(right.unsqueeze(1), factor).squeeze(1)
            trial_loss = task.objective(trial.view(shape)).item()
            evaluations, accepted = evaluations + 1, trial_loss < loss
            damping = max(damping / 3, 1e-12) if accepted else damping * 4
        if not accepted:
            return
        theta, loss = trial, trial_loss
        if not observe(theta.view(shape), evaluations, None):
            return


_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)

METHODS = {method.name: method for method in (
    Method("msa", "basic MSA", _msa, longest=50),
    Method("emsa-paper", "E-MSA as in the paper", _emsa_paper),
    Method("emsa", "E-MSA, closed form", _emsa),
    Method("emsa-multilevel", "multilevel E-MSA", _emsa_multilevel),
    Method("emsa-secant", "E-MSA, closed form and secants", _emsa_secant),
    Method("sgd", "SGD", partial(_gradient, torch.optim.SGD), _RATES),
    Method("adagrad", "Adagrad", partial(_gradient, torch.optim.Adagrad), _RATES),
    Method("adam", "Adam", partial(_gradient, torch.optim.Adam), _RATES),
    Method("lbfgs", "L-BFGS-B on all controls (scipy)", _lbfgs, needs="scipy"),
    Method("lm", "Levenberg-Marquardt", _levenberg_marquardt),
)}
