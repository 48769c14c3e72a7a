"""Where the current controls lead: states, costates and costs."""

from dataclasses import dataclass

from jaxtyping import Float, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Trajectory:
    """x_0 ... x_N and p_0 ... p_N, one row a sample, and Phi_i of each sample. Costates are unscaled."""

    states: tuple[Shaped[Tensor, "sample ..."], ...]
    costates: tuple[Shaped[Tensor, "sample ..."], ...]
    terminal: Float[Tensor, " sample"]
