"""H, the augmented Hamiltonian and the feasibility errors."""

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
