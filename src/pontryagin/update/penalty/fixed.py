"""The same penalties always."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer import HamiltonianModel
from pontryagin.update.penalty.rule import Trial


@dataclass
class Fixed:
    """The same penalties always, every trial taken: [LCTE] Algorithms 1 (both zero) and 2.

    fixed: rho_state and rho_costate, of Algorithm 2 (for residual stages delta times Algorithm 3's).

    Guarantee: J falls in every iteration by at least (1 - 2C/rho) mu_k if both penalties exceed 2C, C the
    constant of Lemma 2 ([LCTE] Theorem 4), which is not known beforehand. The theorem needs H~_new >= H~_old,
    which every maximizer keeps from where it starts, and the solver of every acceleration under a rule of one
    attempt; not a Perturbation of the start. With smaller penalties there is none: J may rise.
    """

    fixed: Penalties
    attempts: int = field(default=1, init=False)
    per_stage: bool = field(default=False, init=False)
    _groups: int = field(default=0, init=False, repr=False)

    def begin(self, models: Sequence[HamiltonianModel]) -> None:
        self._groups = len(models)

    def penalties(self) -> list[Penalties]:
        return [self.fixed] * self._groups

    def accepts(self, trial: Trial) -> bool:
        return True
