"""How a control lies between the nodes of its mesh."""

from dataclasses import dataclass
from typing import ClassVar, TypeAlias


@dataclass(frozen=True)
class PiecewiseConstant:
    """theta(t) = theta_n for t_n <= t < t_{n+1}.

    per_sample: a control for every sample, an open loop for each start; else one is shared by all, as the
        weights of a network are ([LCTE]: a population).
    """

    per_sample: bool = False
    continuous: ClassVar[bool] = False


@dataclass(frozen=True)
class PiecewiseLinear:
    """theta(t) linear between its values at the nodes t_0 ... t_N; bounds at the nodes hold everywhere.
    per_sample: as of PiecewiseConstant."""

    per_sample: bool = False
    continuous: ClassVar[bool] = True


Parametrization: TypeAlias = PiecewiseConstant | PiecewiseLinear
