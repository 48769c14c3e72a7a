"""The Hessian of an objective as an operator: products with vectors, never the matrix itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pontryagin.diagnostics.audit_loss import MeanLoss
from pontryagin.problem import ControlProblem, NonFiniteError, ProblemError, Stage

Vector = Float[Tensor, " parameter"]


@dataclass(frozen=True)
class HessianOperator:
    """v -> H v on flat vectors of all parameters.

    product: one product; the gradient's norm is that of the same objective at the same place.
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
            raise NonFiniteError("a Hessian-vector product holds NaN or infinite values: the objective has no finite second "
                                 "derivative at these parameters")
        return result

    def dense(self) -> Float[Tensor, "parameter parameter"]:
        """The matrix, by a product for every parameter: for small problems only."""
        columns = [self(unit) for unit in torch.eye(self.size, dtype=self.dtype, device=self.device)]
        matrix = torch.stack(columns, 1)
        return 0.5 * (matrix + matrix.mT)


def problem_hessian(problem: ControlProblem, controls: Sequence[Tensor] | None = None) -> HessianOperator:
    """The Hessian of J (mean over samples, running costs included) in all controls, stage after stage as one vector.

    controls: the problem's initial ones by default. The graph of one forward and backward pass is kept while the operator lives.
    """
    controls = problem.check_controls(problem.initial_controls() if controls is None else controls)
    flat = torch.cat([control for stage, control in zip(problem.stages, controls, strict=True) if stage.size])
    flat = flat.detach().clone().requires_grad_()
    with torch.enable_grad():
        gradient, = torch.autograd.grad(_objective(problem, flat), flat, create_graph=True)

    def product(vector: Vector) -> Vector:
        return _second_derivative(gradient, [flat], vector.to(flat))

    return HessianOperator(flat.numel(), flat.dtype, flat.device, float(gradient.detach().norm()), product)


def module_hessian(model: nn.Module, loss: str | Callable[[Tensor, Tensor], Tensor], batches: Sequence[tuple[Tensor, Tensor]]
                   ) -> HessianOperator:
    """The Hessian of the mean loss over all samples of `batches` (inputs, targets) in the trained parameters of a module.

    loss: "cross-entropy", "squared error", or a function of outputs and targets: the mean over a batch, or one number a sample.
    The model is used in evaluation mode and is as before after each product: running statistics and dropout play no part. Each
    product takes two passes over the batches, one of which is in memory at a time.
    """
    batches = list(batches)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not batches or not parameters:
        raise ProblemError(f"module_hessian: expected batches and trained parameters, found {len(batches)} batches and "
                           f"{len(parameters)} parameters")
    samples, mean_loss = sum(len(inputs) for inputs, _ in batches), MeanLoss(loss)

    def over_batches(part: Callable[[Tensor], Tensor]) -> Vector:
        training = [module for module in model.modules() if module.training]
        model.eval()
        try:
            with torch.enable_grad():
                return torch.stack([part(mean_loss(model(inputs), targets)) * (len(inputs) / samples)
                                    for inputs, targets in batches]).sum(0)
        finally:
            for module in training:
                module.training = True

    def product(vector: Vector) -> Vector:
        return over_batches(lambda value: _second_derivative(_gradient(value, parameters), parameters, vector))

    first = parameters[0]
    gradient = over_batches(lambda value: _gradient(value, parameters).detach())
    return HessianOperator(gradient.numel(), first.dtype, first.device, float(gradient.norm()), product)


def _objective(problem: ControlProblem, flat: Vector) -> Tensor:
    pieces = iter(flat.split([stage.size for stage in problem.stages if stage.size]))
    state, cost = problem.initial_state, flat.new_zeros(())
    for stage in problem.stages:
        control = next(pieces) if stage.size else _none(stage)
        state = stage(state, control)
        cost = cost + stage.cost(control) if stage.size else cost
    return problem.terminal_cost(state, problem.target).mean() + cost


def _none(stage: Stage) -> Vector:
    return stage.start


def _gradient(value: Tensor, parameters: Sequence[Tensor]) -> Vector:
    found = torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in found])


def _second_derivative(gradient: Vector, parameters: Sequence[Tensor], vector: Vector) -> Vector:
    """H v = grad(<gradient, v>); zero where the gradient is constant."""
    if not gradient.requires_grad:
        return torch.zeros_like(vector)
    found = torch.autograd.grad(gradient, parameters, vector, retain_graph=True, materialize_grads=True)
    return torch.cat([part.detach().reshape(-1) for part in found])
