"""A number of a user's own that is measured beside the loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pontryagin.run.errors import ExperimentError
from pontryagin.run.user_code import call, kind_of


@dataclass(frozen=True)
class Metric:
    """function(outputs, targets) of all samples of a part at once, (sample, ...) each, on the CPU: a number,
    greater for a better network. name: as it was asked for."""

    name: str
    function: Callable[[Tensor, Tensor], Any]

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        """Its value. Raises ExperimentError."""
        given = outputs.detach().cpu(), targets.cpu()
        found = call(lambda: self.function(*given), {}, f"metric {self.name!r}, of {kind_of(given)}")
        try:
            return float(torch.as_tensor(found).item())
        except (TypeError, ValueError, RuntimeError) as error:
            raise ExperimentError(f"metric {self.name!r}: expected one number, found "
                                  f"{kind_of(found)}") from error
