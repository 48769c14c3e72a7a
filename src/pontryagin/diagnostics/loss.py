"""The loss of a look at a model: by name or any function, always the mean over samples, checked."""

from collections.abc import Callable

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pontryagin.problem import CrossEntropy, ProblemError
from pontryagin.problem.ignored import IGNORED, mean_of_counted, samples_counted

LossLike = str | Callable[[Tensor, Tensor], Tensor]
"""What MeanLoss makes a loss of."""


class MeanLoss:
    """Outputs (sample, ...) and targets to a number.

    loss: "cross-entropy" (logits, classes along the second axis, or the last one where targets have the other
    axes), "squared-error" (summed over the components of a sample), or a function of outputs and targets that
    returns the mean over samples, or one number a sample.

    Class indices of -100 are ignored, as in torch: the mean is over the others, 0 when there are none, and so
    many samples does a batch count for in a mean over several. Of a function of one's own the same is taken
    where its targets are whole numbers; one that returns a mean has to leave them out itself.
    """

    def __init__(self, loss: LossLike) -> None:
        named = {"cross-entropy": cross_entropy, "squared-error": squared_error}
        if isinstance(loss, str) and loss not in named:
            raise ProblemError(f"unknown loss {loss!r}: expected {' or '.join(map(repr, named))}, or a "
                               "function of outputs and targets")
        self.name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
        self.classes = loss == "cross-entropy" or isinstance(loss, CrossEntropy)
        """Whether the largest outputs matter most."""
        self._ignores = loss != "squared-error"
        self._function = cross_entropy if self.classes else named[loss] if isinstance(loss, str) else loss

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over samples, a tensor without axes."""
        value = self._function(outputs, targets)
        if isinstance(value, Tensor) and value.shape == outputs.shape[:1]:
            ignores = self._ignores and value.shape == targets.shape
            value = mean_of_counted(value, targets) if ignores else value.mean()
        if not isinstance(value, Tensor) or value.ndim:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ProblemError(f"loss {self.name}: expected a tensor with one number, or one for each of the "
                               f"{outputs.shape[0]} samples, found {found}")
        return value

    def counted(self, targets: Tensor) -> float:
        """How many samples count, by their targets: a sample of several positions in part where some of them
        are ignored."""
        return samples_counted(targets).item() if self._ignores and targets.numel() else float(len(targets))


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over samples and their positions that are not ignored, in nats; 0 when all are."""
    if outputs.ndim > 2 and targets.shape == outputs.shape[:-1]:
        outputs, targets = outputs.flatten(0, -2), targets.flatten()
    if targets.shape != outputs.shape and targets.shape != outputs.shape[:1] + outputs.shape[2:]:
        raise ProblemError(f"cross-entropy: expected targets for logits of shape {tuple(outputs.shape)}, "
                           f"found shape {tuple(targets.shape)}")
    if targets.is_floating_point():  # probabilities
        return F.cross_entropy(outputs, targets)
    return mean_of_counted(F.cross_entropy(outputs, targets, reduction="none", ignore_index=IGNORED), targets)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over samples of |out - y|^2."""
    if outputs.shape != targets.shape:
        raise ProblemError(f"squared-error: expected targets of shape {tuple(outputs.shape)}, found "
                           f"{tuple(targets.shape)}")
    return (outputs - targets).square().sum() / outputs.shape[0]
