"""What a method of training is: its name, its maker, its grid of learning rates, and how it is drawn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

from torch import nn

from pontryagin.problem import ProblemError
from pontryagin.run.errors import ExperimentError, unknown
from pontryagin.run.objective import Objective
from pontryagin.run.trainer import Trainer

Make = Callable[..., Trainer]
"""make(model, objective, rate, *, option, ...): a trainer at its start. Options are keyword-only, with
defaults."""
OWN_SCHEDULE = frozenset({"schedule", "warm_up"})
"""What a method with a schedule of its own leaves."""


@dataclass(frozen=True)
class MethodStyle:
    """How figures and tables show a method. label: for people; color: of Okabe and Ito's color-blind safe
    set; line: matplotlib's style; width in points."""

    label: str
    color: str
    line: Any = "-"
    width: float = 1.5

    @property
    def look(self) -> dict[str, Any]:
        """As matplotlib's arguments."""
        return {"color": self.color, "linestyle": self.line, "linewidth": self.width}


@dataclass(frozen=True)
class Method:
    """make: see Make. rates: the grid to tune on, the customary default first; with one rate it is never
    tuned. needs: a package of an extra. bench_only: of the benchmark alone, such as one
    whose state no checkpoint can hold. leaves: settings of a run that mean nothing to it."""

    name: str
    make: Make
    rates: tuple[float, ...]
    style: MethodStyle
    needs: str = ""
    bench_only: bool = False
    leaves: frozenset[str] = frozenset()

    def trainer(self, model: nn.Module, objective: Objective, rate: float | None = None,
                options: Mapping[str, Any] | None = None) -> Trainer:
        """At its start. Raises ExperimentError for an unknown option and for a value that is refused."""
        given = dict(options or {})
        known = [name for name, found in signature(self.make).parameters.items()
                 if found.kind is Parameter.KEYWORD_ONLY]
        if wrong := [name for name in given if name not in known]:
            raise unknown(f"option of {self.name}", wrong, known)
        try:
            return self.make(model, objective, self.rates[0] if rate is None else rate, **given)
        except (ProblemError, ExperimentError):
            raise
        except (TypeError, ValueError) as error:
            raise ExperimentError(f"{self.name} cannot be made with rate {rate} and options {given}: "
                                  f"{error}") from error
