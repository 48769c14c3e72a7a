"""The loss of an audit: by name or any function, always the mean over samples, checked."""

from collections.abc import Callable

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pontryagin.problem import CrossEntropy, ProblemError


class MeanLoss:
    """Outputs (sample, ...) and targets to a number.

    loss: "cross-entropy" (logits, classes along the second axis, or the last one where targets have the other axes),
    "squared-error" (summed over the components of a sample), or a function of outputs and targets that returns the mean over
    samples, or one number a sample.
    """

    def __init__(self, loss: str | Callable[[Tensor, Tensor], Tensor]) -> None:
        named = {"cross-entropy": cross_entropy, "squared-error": squared_error}
        if isinstance(loss, str) and loss not in named:
            raise ProblemError(f"unknown loss {loss!r}: expected {' or '.join(map(repr, named))}, or a function of outputs and "
                               "targets")
        self.name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
        self.classes = loss == "cross-entropy" or isinstance(loss, CrossEntropy)
        """Whether the largest outputs matter most."""
        self._function = named[loss] if isinstance(loss, str) else loss

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over samples, a tensor without axes."""
        value = self._function(outputs, targets)
        if isinstance(value, Tensor) and value.shape == outputs.shape[:1]:
            value = value.mean()
        if not isinstance(value, Tensor) or value.ndim:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ProblemError(f"loss {self.name}: expected a tensor with one number, or one for each of the {outputs.shape[0]} "
                               f"samples, found {found}")
        return value


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over samples and their positions, in nats."""
    if outputs.ndim > 2 and targets.shape == outputs.shape[:-1]:
        outputs, targets = outputs.flatten(0, -2), targets.flatten()
    if targets.shape != outputs.shape and targets.shape != outputs.shape[:1] + outputs.shape[2:]:
        raise ProblemError(f"cross-entropy: expected targets for logits of shape {tuple(outputs.shape)}, found shape "
                           f"{tuple(targets.shape)}")
    return F.cross_entropy(outputs, targets)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over samples of |out - y|^2."""
    if outputs.shape != targets.shape:
        raise ProblemError(f"squared-error: expected targets of shape {tuple(outputs.shape)}, found {tuple(targets.shape)}")
    return (outputs - targets).square().sum() / outputs.shape[0]
