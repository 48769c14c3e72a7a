"""The records of a solve, and what it may say of the controls that it ended with."""

from collections.abc import Iterable
from dataclasses import dataclass

from pontryagin.hamiltonian import Penalties
from pontryagin.update.record import IterationRecord

REFERENCE = Penalties(1.0, 0.0)
"""The penalty of the optimality gap unless another is stated: no argmax at rho_state >= 1 promises more."""


@dataclass(frozen=True)
class Ending:
    """How a solve ended. converged: whether the optimality gap at `reference` is at most `tolerance`. gap:
    it, at the last controls; nan where nothing asked for it. reason: in words."""

    converged: bool
    gap: float
    tolerance: float
    reference: Penalties
    reason: str


class Iterations(list[IterationRecord]):
    """The records of all iterations, in order, and the `ending`."""

    def __init__(self, records: Iterable[IterationRecord], ending: Ending) -> None:
        super().__init__(records)
        self.ending = ending

    @property
    def converged(self) -> bool:
        """Whether the optimality gap at the reference penalty is at most the tolerance."""
        return self.ending.converged

    @property
    def optimality_gap(self) -> float:
        """Of the last controls, at the reference penalty; nan where nothing asked for it."""
        return self.ending.gap


def ending(last: IterationRecord | None, gap: float, tolerance: float, reference: Penalties,
           why: str = "") -> Ending:
    """What can be said after the last iteration, if there was one. why: the gap is inf."""
    penalties = f"rho_state = {reference.rho_state:g}, rho_costate = {reference.rho_costate:g}"
    penalties += f", rho_control = {reference.rho_control:g}" if reference.rho_control else ""
    known = "" if gap != gap else f"; the optimality gap at {penalties} is {gap:.3g}"
    known += f": {why}" if why else ""
    if gap <= tolerance:
        return Ending(True, gap, tolerance, reference,
                      f"converged: at {penalties} no stage can promise more than {gap:.3g}")
    if last is not None and not last.accepted:
        reason = (f"none of {last.rejected} trials lowered J by enough (the last promised "
                  f"{last.optimality_gap:.3g}, at rho_state = {last.penalties.rho_state:.3g}): less is lost "
                  "in J's rounding, or the maximizer does not shorten its steps for larger penalties")
        return Ending(False, gap, tolerance, reference, reason + known)
    return Ending(False, gap, tolerance, reference, "the iterations are used up" + known)
