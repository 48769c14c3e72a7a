"""The methods that are compared on the sine, each by the name that options, tables and figures use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pontryagin.hamiltonian import paper_penalties
from pontryagin.maximizer import LBFGS, ClosedForm
from pontryagin.papers.sine import baselines
from pontryagin.papers.sine.task import SineTask, Theta
from pontryagin.run.errors import ExperimentError, need
from pontryagin.update import MSA, AcceptReject, ExtendedMSA, Fixed, IterationRecord, Plain, Secant

Observe = Callable[[Theta, int, IterationRecord | None], bool]
"""Called after each iteration with the controls, the evaluations since the last call (one is a forward pass
of the network, with or without a backward pass) and the record, if there is one. False: stop."""

PAPER_RHO = 1.0


@dataclass(frozen=True)
class Method:
    """How a method is run on a task. rates: the learning rates to choose from, none if it has no rate. needs:
    a package of an extra."""

    name: str
    label: str
    run: Callable[[SineTask, int, float, Observe], None]
    rates: tuple[float, ...] = ()
    longest: int | None = None
    """More iterations than this are never run, because nothing new happens."""
    needs: str = ""


def _msa(task: SineTask, iterations: int, rate: float, observe: Observe) -> None:
    """Algorithm 1. The argmax of H without penalties is bounded by the 10 iterations of L-BFGS."""
    _iterate(MSA(task.problem(), task.start().unbind(), maximizer=LBFGS()), iterations, observe)


def _emsa_paper(task: SineTask, iterations: int, rate: float, observe: Observe) -> None:
    """Algorithm 2 as in the paper: rho = 1 in its units, every argmax taken."""
    problem = task.problem()
    penalty = Fixed(paper_penalties(PAPER_RHO, problem.samples))
    solver = ExtendedMSA(problem, task.start().unbind(), maximizer=LBFGS(), penalty=penalty,
                         acceleration=Plain())
    _iterate(solver, iterations, observe)


def _emsa(task: SineTask, iterations: int, rate: float, observe: Observe) -> None:
    """The default: closed form at the affine maps, accept/reject, momentum."""
    problem = task.split_problem()
    _iterate(ExtendedMSA(problem, _split_controls(task.start())), iterations, observe)


def _emsa_secant(task: SineTask, iterations: int, rate: float, observe: Observe) -> None:
    """The closed form as the initial inverse Hessian of an L-BFGS over all stages."""
    problem = task.split_problem()
    solver = ExtendedMSA(problem, _split_controls(task.start()), maximizer=ClosedForm(damping=5e-2),
                         penalty=AcceptReject(rho=1.0, restart=True), acceleration=Secant())
    _iterate(solver, iterations, observe)


_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)

METHODS = {method.name: method for method in (
    Method("msa", "basic MSA", _msa, longest=50),
    Method("emsa-paper", "E-MSA as in the paper", _emsa_paper),
    Method("emsa", "E-MSA, closed form", _emsa),
    Method("emsa-secant", "E-MSA, closed form and secants", _emsa_secant),
    Method("sgd", "SGD", baselines.sgd, _RATES),
    Method("adagrad", "Adagrad", baselines.adagrad, _RATES),
    Method("adam", "Adam", baselines.adam, _RATES),
    Method("lbfgs", "L-BFGS-B on all controls (scipy)", baselines.lbfgs, needs="scipy"),
    Method("lm", "Levenberg-Marquardt", baselines.levenberg_marquardt),
)}


def choose(names: Sequence[str] | None) -> list[Method]:
    """The methods with these names, all if None, in the order of METHODS. Raises ExperimentError for a name
    that is unknown or whose package is missing."""
    unknown = sorted(set(names or ()) - METHODS.keys())
    if unknown:
        raise ExperimentError(f"unknown method {', '.join(map(repr, unknown))}: expected one or more of "
                              f"{', '.join(METHODS)}")
    chosen = [method for method in METHODS.values() if names is None or method.name in names]
    for method in chosen:
        if method.needs:
            need(method.needs, f"method {method.name}", "leave it out of --methods")
    return chosen


def _iterate(solver: ExtendedMSA, iterations: int, observe: Observe) -> None:
    """Until the iterations are used up, the observer has seen enough, or no trial is accepted any more."""
    for record in solver.iterate(iterations):
        if not observe(_rows(solver.controls), record.evaluations, record) or not record.accepted:
            return


def _rows(controls: Sequence[Tensor]) -> Theta:
    return torch.stack([control for control in controls if control.numel()])


def _split_controls(theta: Theta) -> list[Tensor]:
    """Each affine stage is followed by a step without control."""
    return [control for row in theta for control in (row, theta.new_empty(0))]

