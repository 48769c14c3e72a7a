"""The two penalties of the augmented Hamiltonian."""

from dataclasses import dataclass
from math import isfinite

from pontryagin.problem import ProblemError


@dataclass(frozen=True)
class Penalties:
    """rho_state weighs the error of the states, rho_costate that of the costates; both are >= 0.

    They apply to means over samples with unscaled costates, so they do not depend on the batch size.
    For residual stages they are Algorithm 2's, the ones that multiply |g - x_{n+1}|^2 (delta times
    Algorithm 3's).
    """

    rho_state: float
    rho_costate: float

    def __post_init__(self) -> None:
        for name, rho in (("rho_state", self.rho_state), ("rho_costate", self.rho_costate)):
            if not (isfinite(rho) and rho >= 0):
                raise ProblemError(f"{name}: expected a finite penalty >= 0, found {rho}")


def paper_penalties(rho: float, samples: int) -> Penalties:
    """The penalties that equal the rho of [LCTE]'s experiments on a batch of `samples`.

    There costates come from the batch-mean loss (so they are 1/K of ours) and H and penalties are sums over
    the batch. Dividing that H~ by the same factor gives rho_state = K rho and rho_costate = rho / K.
    """
    if samples < 1:
        raise ProblemError(f"expected at least one sample, found {samples}")
    return Penalties(samples * rho, rho / samples)
