"""H, the augmented Hamiltonian, the feasibility errors, and the quadratic model of an affine stage."""

from pontryagin.hamiltonian.hamiltonian import (
    Measures,
    Penalties,
    augmented,
    costate,
    costate_error,
    hamiltonian,
    measure,
    paper_penalties,
    state_error,
)

__all__ = ["Measures", "Penalties", "augmented", "costate", "costate_error", "hamiltonian", "measure",
           "paper_penalties", "state_error"]
