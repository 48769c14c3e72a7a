"""What the optimizers over discrete weights share: the weights that they take, and gradients that can be
used."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pontryagin.problem import NonFiniteError, ProblemError
from pontryagin.problem.admissible import Binary, DiscreteSet, MatrixSet, Rows, Ternary


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trained parameters with two axes or more (weights), and the others (biases, normalizations)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim < 2]


def taken(name: str, params: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """A list of weights. ProblemError for none at all or for parameters with less than two axes."""
    weights = list(params)
    if not weights or not all(isinstance(weight, Tensor) and weight.ndim > 1 for weight in weights):
        shapes = [tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
                  for weight in weights]
        raise ProblemError(f"{name} expects weights with two axes or more, found {shapes or 'none'}; train "
                           "biases and normalizations by another optimizer")
    return weights


def check_inside(name: str, weights: Sequence[Tensor], admissible: MatrixSet) -> None:
    """ProblemError when a weight lies outside the set."""
    for weight in weights:
        admissible.check(weight.shape[0], weight[0].numel())
        if not inside(weight, admissible):
            raise ProblemError(f"{name}: a weight of shape {tuple(weight.shape)} lies outside "
                               f"{admissible!r}; begin with weights of the set, such as draw(shape, set) or "
                               "set.project(weight)")


def inside(weight: Tensor, admissible: MatrixSet) -> bool:
    """Whether a weight lies in the set, exactly; rows are its first axis."""
    weight = weight.detach()
    # what training asks after every iteration
    if isinstance(admissible, Binary | Ternary) and admissible.scale != "row":
        size = weight.abs()
        scale = torch.tensor(admissible.scale, dtype=weight.dtype)
        off = size - scale if isinstance(admissible, Binary) else (size - scale).mul_(size)
        return all(bound.item() == 0 for bound in off.aminmax())
    rows = Rows(weight.shape)
    return bool(admissible.within(rows).contains(rows.matrix(weight)))


def draw(shape: Sequence[int], admissible: MatrixSet, generator: torch.Generator | None = None) -> Tensor:
    """Weights with each code of a discrete set equally often, and scale 1 where it is free. ProblemError for
    other sets."""
    if not isinstance(admissible, DiscreteSet):
        raise ProblemError(f"expected a discrete set such as Binary() or Ternary(), found {admissible!r}")
    codes = torch.tensor(admissible.grid.codes, dtype=torch.get_default_dtype())
    scale = 1.0 if admissible.scale == "row" else admissible.scale
    return codes[torch.randint(len(codes), tuple(shape), generator=generator)] * scale


def check_gradients(name: str, weights: Iterable[nn.Parameter]) -> None:
    """NonFiniteError when a gradient holds NaN or infinity: to be called before anything is changed."""
    sums = [weight.grad.sum() for weight in weights if weight.grad is not None]
    if sums and not torch.stack(sums).isfinite().all():
        raise NonFiniteError(f"{name}: the gradient of a weight is not finite: nothing has been changed; "
                             "skip this batch or look at its loss")
