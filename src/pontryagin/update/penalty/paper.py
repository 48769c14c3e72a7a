"""The paper's rho, for batches of any size."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pontryagin.hamiltonian import Penalties, paper_penalties
from pontryagin.maximizer import HamiltonianModel
from pontryagin.update.penalty.rule import Trial


@dataclass
class PaperPenalty:
    """The rho of [LCTE]'s experiments on whatever batch is stepped on, every trial taken.

    rho: finite and >= 0, in the units of the paper's code, whose costates come from the batch-mean loss and
    whose H~ is a sum over the batch: of a batch of K samples rho_state = K rho and rho_costate = rho / K, at
    all stages (`paper_penalties`).

    Guarantee: as Fixed. Raises ProblemError for other numbers.
    """

    rho: float
    attempts: int = field(default=1, init=False)
    per_stage: bool = field(default=False, init=False)
    _penalties: list[Penalties] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        paper_penalties(self.rho, 1)

    def begin(self, models: Sequence[HamiltonianModel]) -> None:
        self._penalties = [paper_penalties(self.rho, model.group.samples) for model in models]

    def penalties(self) -> list[Penalties]:
        return self._penalties

    def accepts(self, trial: Trial) -> bool:
        return True
