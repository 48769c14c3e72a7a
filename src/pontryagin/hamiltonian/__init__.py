"""H, the augmented Hamiltonian, the feasibility errors, and the quadratic model of an affine stage."""

from pontryagin.hamiltonian.hamiltonian import (
    Measures,
    augmented,
    costate,
    costate_error,
    hamiltonian,
    measure,
    state_error,
)
from pontryagin.hamiltonian.penalties import Penalties, paper_penalties

__all__ = ["Measures", "Penalties", "augmented", "costate", "costate_error", "hamiltonian", "measure",
           "paper_penalties", "state_error"]
