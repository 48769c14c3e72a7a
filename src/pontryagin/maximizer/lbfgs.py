"""L-BFGS on the augmented Hamiltonian, batched over equal stages, each with its own step and line search."""

from dataclasses import dataclass

import torch
from torch.func import grad_and_value, vmap

from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer.minimization import Controls, Mask, PerStage, minimize
from pontryagin.maximizer.protocol import EvaluatedModel, require_unconstrained
from pontryagin.problem import ProblemError
from pontryagin.trajectory import StageGroup

_CHUNK = 2**20
"""Bytes of the states of the stages that are evaluated at once: about what a core's cache holds."""


@dataclass(frozen=True)
class LBFGS:
    """`iterations` of L-BFGS from `group.start`, the paper's argmax (10 iterations in [LCTE] section 4).

    Each stage has its own history, step length, weak-Wolfe line search and pace: stages that are not done are
    evaluated together by vmap, each at its own trial; one that has converged, or whose search fails, stays
    where it is. StageByStage(LBFGS()) gives the same controls one after the other. H~ never falls.

    iterations: 10 as in the paper. history_size: curvature pairs kept; 10, so that nothing is forgotten.
    searches: trials of a line search; 20, since most halve the bracket and 2^-20 is about float32's rounding.
    Raises ProblemError for numbers below 1 and for stages with an admissible set.
    Source: [LCTE] section 4; Nocedal and Wright, Numerical Optimization, Algorithm 7.4.
    """

    iterations: int = 10
    history_size: int = 10
    searches: int = 20

    def __post_init__(self) -> None:
        for name in ("iterations", "history_size", "searches"):
            if getattr(self, name) < 1:
                raise ProblemError(f"LBFGS {name}: expected a number >= 1, found {getattr(self, name)}")

    def model(self, group: StageGroup) -> "LBFGSModel":
        """Nothing is computed before maximize."""
        require_unconstrained(group, "LBFGS")
        return LBFGSModel(group, self)


class LBFGSModel(EvaluatedModel):
    """H~ as a function to be evaluated."""

    def __init__(self, group: StageGroup, settings: LBFGS) -> None:
        super().__init__(group)
        self.settings = settings

    def maximize(self, penalties: Penalties) -> Controls:
        """Minimize -H~ of all stages at once."""
        value, image = self.augmented(penalties), self.group.next_states[0]
        arguments = self.arguments(penalties)
        batched = vmap(grad_and_value(lambda *point: -value(*point)))
        together = max(1, _CHUNK // max(1, image.numel() * image.element_size()))

        def evaluate(controls: Controls, wanted: Mask) -> tuple[PerStage, Controls]:
            self.evaluations += 1
            values, gradients = torch.full_like(controls[:, 0], torch.inf), torch.zeros_like(controls)
            for rows in wanted.nonzero().squeeze(1).split(together):
                gradients[rows], values[rows] = batched(controls[rows],
                                                        *(part[rows] for part in arguments))
            return values, gradients

        return minimize(evaluate, self.group.start, self.settings.iterations, self.settings.history_size,
                        self.settings.searches)
