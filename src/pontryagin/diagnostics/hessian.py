"""The Hessian of an objective as an operator: products with vectors, never the matrix itself."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pontryagin.diagnostics.batches import Batch, Inputs, arguments, gathered
from pontryagin.diagnostics.draws import Draws, State
from pontryagin.diagnostics.looking import (
    check_arguments,
    check_repeats,
    kept_buffers,
    looking,
    one_tensor,
    second_derivatives,
)
from pontryagin.diagnostics.loss import LossLike, MeanLoss
from pontryagin.problem import ControlProblem, NonFiniteError, ProblemError

Vector = Float[Tensor, " parameter"]


@dataclass(frozen=True)
class HessianOperator:
    """v -> H v on flat vectors of all parameters, (size,), of this dtype on this device.

    gradient_norm: of the same objective at the same place. product: one product, not checked.
    """

    size: int
    dtype: torch.dtype
    device: torch.device
    gradient_norm: float
    product: Callable[[Vector], Vector]

    def __call__(self, vector: Vector) -> Vector:
        """H v. Raises NonFiniteError when it is not finite."""
        result = self.product(vector)
        if not result.isfinite().all():
            raise NonFiniteError("a Hessian-vector product holds NaN or infinite values: the objective has "
                                 "no finite second derivative at these parameters")
        return result

    def dense(self) -> Float[Tensor, "parameter parameter"]:
        """The matrix, by a product for every parameter: for small problems only."""
        columns = [self(unit) for unit in torch.eye(self.size, dtype=self.dtype, device=self.device)]
        matrix = torch.stack(columns, 1)
        return 0.5 * (matrix + matrix.mT)


def problem_hessian(problem: ControlProblem, controls: Sequence[Tensor] | None = None) -> HessianOperator:
    """The Hessian of J = mean_i Phi_i + sum_n delta_n L_n in all controls, stage after stage as one vector.

    The graph of one forward and backward pass is kept while the operator lives.

    Args:
        problem: the control problem, with its samples.
        controls: theta_n of every stage, (control,) each, in the stages' order; by default the problem's
            initial ones, where a solver begins.

    Raises:
        ProblemError: controls that are not the problem's, or functions without a second derivative in torch.
        NonFiniteError: by a product with the operator, where it is not finite.
    """
    controls = problem.check_controls(problem.initial_controls() if controls is None else controls)
    flat = torch.cat([control for stage, control in zip(problem.stages, controls, strict=True) if stage.size])
    flat = flat.detach().clone().requires_grad_()
    with torch.enable_grad(), second_derivatives("problem_hessian"):
        gradient, = torch.autograd.grad(_objective(problem, flat), flat, create_graph=True)

    def product(vector: Vector) -> Vector:
        with second_derivatives("problem_hessian"):
            return _second_derivative(gradient, [flat], vector.to(flat))

    return HessianOperator(flat.numel(), flat.dtype, flat.device, float(gradient.detach().norm()), product)


def module_hessian(model: nn.Module, loss: LossLike,
                   batches: Iterable[tuple[Inputs, Tensor]]) -> HessianOperator:
    """The Hessian of the mean loss over all samples of `batches` in the trained parameters of a module.

    The model is used in evaluation mode and is as before after each product: running statistics and dropout
    play no part. Where it draws random numbers there, those of a batch are the same in every product
    (draws.Draws). Each product takes two passes over the batches, one of which is in memory at a time.

    Args:
        model: any module whose output is one tensor; its parameters that require a gradient, in their order,
            are one vector.
        loss: "cross-entropy", "squared-error", or a function of outputs and targets: the mean over a batch,
            or one number a sample, (sample,) (MeanLoss; class indices of -100 do not count).
        batches: pairs (inputs, targets), gone through once and held. Inputs: a tensor (sample, ...), or a
            tuple or dict of them as positional or named arguments of the model.

    Raises:
        ProblemError: a wrong request, or functions that have no second derivative in torch.
        NonFiniteError: by a product with the operator, where it is not finite.
    """
    model, mean_loss = getattr(model, "_orig_mod", model), MeanLoss(loss)  # what torch.compile wraps
    held = gathered(batches, mean_loss.counted)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not held or not parameters:
        raise ProblemError(f"module_hessian: expected batches and trained parameters, found {len(held)} "
                           f"batches with targets that count and {len(parameters)} parameters")
    check_arguments("module_hessian", model, held[0].inputs)
    states: dict[Hashable, State] = {}

    def over_batches(part: Callable[[Tensor], Tensor]) -> Vector:
        with (torch.enable_grad(), second_derivatives("module_hessian"), looking(model, states) as draws,
              kept_buffers(model) as renew):
            if not states:
                check_repeats("module_hessian", lambda: _outputs(model, held[0], draws, renew))
            return torch.stack([part(mean_loss(_outputs(model, batch, draws, renew), batch.targets))
                                * batch.weight for batch in held]).sum(0)

    def product(vector: Vector) -> Vector:
        return over_batches(lambda value: _second_derivative(_gradient(value, parameters), parameters,
                                                             vector))

    first = parameters[0]
    gradient = over_batches(lambda value: _gradient(value, parameters).detach())
    return HessianOperator(gradient.numel(), first.dtype, first.device, float(gradient.norm()), product)


def _outputs(model: nn.Module, batch: Batch, draws: Draws, renew: Callable[[], None]) -> Tensor:
    positional, named = arguments(batch.inputs)
    renew()
    draws.begin(batch.draw)
    return one_tensor("module_hessian", model(*positional, **named))


def _objective(problem: ControlProblem, flat: Vector) -> Tensor:
    pieces = iter(flat.split([stage.size for stage in problem.stages if stage.size]))
    controls = tuple(next(pieces) if stage.size else stage.start for stage in problem.stages)
    state = problem.initial_state
    for stage, control in zip(problem.stages, controls, strict=True):
        state = stage(state, control)
    return problem.terminal_cost(state, problem.target).mean() + problem.running_cost(controls)


def _gradient(value: Tensor, parameters: Sequence[Tensor]) -> Vector:
    found = torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in found])


def _second_derivative(gradient: Vector, parameters: Sequence[Tensor], vector: Vector) -> Vector:
    """H v = grad(<gradient, v>); zero where the gradient is constant."""
    if not gradient.requires_grad:
        return torch.zeros_like(vector)
    found = torch.autograd.grad(gradient, parameters, vector, retain_graph=True, materialize_grads=True)
    return torch.cat([part.detach().reshape(-1) for part in found])
