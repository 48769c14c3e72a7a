"""Running costs that are sums over the entries of a control."""

from dataclasses import dataclass

from torch import Tensor

from pontryagin.problem import L0, L1, NoCost, ProblemError, Quadratic, Stage


@dataclass(frozen=True)
class SeparableCost:
    """quadratic/2 v^2 + absolute |v| + (count if v != 0), for each entry v."""

    quadratic: float = 0.0
    absolute: float = 0.0
    count: float = 0.0

    def __call__(self, value: Tensor) -> Tensor:
        """The cost of each entry."""
        cost = 0.5 * self.quadratic * value.square() + self.absolute * value.abs()
        return cost + self.count * (value != 0) if self.count else cost

    @property
    def smooth(self) -> bool:
        """Whether it is none or quadratic."""
        return self.absolute == 0 and self.count == 0


def separable_cost(stage: Stage, positions: int, method: str) -> SeparableCost:
    """delta L / positions of a stage. ProblemError for a cost that is not known to be a sum over entries."""
    cost = stage.running_cost
    if isinstance(cost, NoCost):
        return SeparableCost()
    factor = stage.step_size / positions
    if isinstance(cost, Quadratic):
        return SeparableCost(quadratic=factor * cost.weight)
    if isinstance(cost, L1):
        return SeparableCost(absolute=factor * cost.weight)
    if isinstance(cost, L0):
        return SeparableCost(count=factor * cost.weight)
    raise ProblemError(f"{method} takes the running costs Quadratic, L1, L0 or none, but {stage.name} has "
                       f"{cost!r}")
