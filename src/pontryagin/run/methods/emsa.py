"""E-MSA in closed form."""

from torch import nn

from pontryagin import optim
from pontryagin.optim import Constraint, Metric
from pontryagin.optim.compiled_ahead import compile_ahead
from pontryagin.problem.admissible.names import set_name
from pontryagin.run.errors import ExperimentError
from pontryagin.run.methods.discrete import begin
from pontryagin.run.methods.method import Method, MethodStyle
from pontryagin.run.objective import Objective
from pontryagin.run.processes import group
from pontryagin.run.trainer import OptimizerTrainer


def emsa(model: nn.Module, objective: Objective, rate: float, *, damping: float = 0.1,
         exponent: float | None = None, momentum: float = 0.8, averaging: float | None = 8.0,
         weight_decay: float = 0.0, refresh_budget: float = 0.025, metric_rank: int = 32,
         admissible: str | None = None, density: float | None = None) -> OptimizerTrainer:
    """The closed-form argmax; over the admissible set of that name, where weights of a discrete one begin
    rounded; density: the share of weights that a price leaves over ternary sets."""
    if density is not None and set_name(str(admissible)) not in ("ternary", "ternary-rows"):
        raise ExperimentError("density: has no effect without admissible ternary, whose zeros it prices; "
                              f"found admissible {admissible}")
    for dtype in {parameter.dtype for parameter in model.parameters() if parameter.is_cpu}:
        compile_ahead(dtype)
    wanted = begin(model, admissible) if admissible else None
    metric = Metric(damping, exponent, metric_rank=metric_rank, refresh_budget=refresh_budget)
    made = optim.EMSA(model, lr=rate, momentum=momentum, weight_decay=weight_decay, averaging=averaging,
                      metric=metric, constraint=Constraint(wanted, density=density), process_group=group())
    return LossKnown(model, made, objective)


class LossKnown(OptimizerTrainer):
    """Its optimizer bounds what a step promises by what is left of the loss."""

    def _move(self, loss: float) -> None:
        self.optimizer.step(loss=loss)  # type: ignore[call-arg]


EMSA = Method("emsa", emsa, (0.03,), MethodStyle("E-MSA", "#0072B2", "-", 2.2),
              leaves=frozenset({"clip_norm"}))  # its steps are free of the gradient's scale
