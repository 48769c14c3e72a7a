"""Sets of matrices as a set of whole controls: which parameter of a stage lies in which set."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pontryagin.affine import Layout
from pontryagin.errors import ProblemError
from pontryagin.problem.admissible.rows import Rows
from pontryagin.problem.admissible.sets import AdmissibleSet, Matrix, MatrixSet, RealSpace

Admissible = AdmissibleSet | MatrixSet | Mapping[str, MatrixSet | RealSpace]
"""A set of controls; a set of matrices, for every parameter with two axes or more; or sets by the parameters'
names."""


@dataclass(frozen=True)
class PerParameter:
    """Theta is the product of a set for each parameter of the layout; None stands for R^p. rows: of each."""

    layout: Layout
    sets: tuple[MatrixSet | None, ...]
    rows: tuple[Rows, ...]

    @property
    def unconstrained(self) -> bool:
        return all(one is None for one in self.sets)

    def project(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage control"]:
        """Every parameter projected onto its own set."""
        return torch.cat([piece if one is None
                          else _flat(rows.shaped(one.project(_matrix(piece, rows))), rows)
                          for piece, rows, one in self._pieces(control)], -1)

    def contains(self, control: Float[Tensor, "*stage control"]) -> Bool[Tensor, "*stage"]:
        """Whether every parameter lies in its set, exactly."""
        inside = [piece.isfinite().all(-1) if one is None else one.contains(_matrix(piece, rows))
                  for piece, rows, one in self._pieces(control)]
        return torch.stack(inside).all(0)

    def __repr__(self) -> str:
        named = zip(self.layout, self.sets, strict=True)
        return "{" + ", ".join(f"{name}: {one!r}" for (name, _), one in named if one is not None) + "}"

    def _pieces(self, control: Tensor) -> list[tuple[Tensor, Rows, MatrixSet | None]]:
        pieces = torch.split_with_sizes(control, [prod(shape) for _, shape in self.layout], -1)
        return list(zip(pieces, self.rows, self.sets, strict=True))


def _matrix(piece: Float[Tensor, "*stage entries"], rows: Rows) -> Matrix:
    return rows.matrix(piece.unflatten(-1, rows.shape) if rows.shape else piece.squeeze(-1))


def _flat(weight: Tensor, rows: Rows) -> Float[Tensor, "*stage entries"]:
    return weight.flatten(weight.ndim - len(rows.shape)) if rows.shape else weight.unsqueeze(-1)


def admissible_set(name: str, layout: Layout, admissible: Admissible,
                   rows: Mapping[str, Rows] | None = None) -> AdmissibleSet:
    """What a stage with this name and layout makes of a request; ProblemError, naming it, if it cannot.

    rows: of parameters by name, the first axis for others.
    """
    known = ", ".join(key for key, _ in layout) or "none"
    if isinstance(admissible, MatrixSet):
        matrices = [key for key, shape in layout if len(shape) > 1]
        if not matrices:
            raise ProblemError(f"{name} has no matrix for {admissible!r} to apply to (its parameters: "
                               f"{known}); name the parameter: admissible={{name: set}}")
        admissible = dict.fromkeys(matrices, admissible)
    if not isinstance(admissible, Mapping):
        if not isinstance(admissible, AdmissibleSet):
            raise ProblemError(f"{name}: expected an admissible set such as RealSpace(), found "
                               f"{admissible!r}")
        return admissible
    unknown = sorted(set(admissible) - {key for key, _ in layout})
    if unknown:
        raise ProblemError(f"{name}: admissible names {', '.join(map(repr, unknown))}, but the parameters "
                           f"are {known}")
    places = tuple((rows or {}).get(key, Rows(shape)) for key, shape in layout)
    return PerParameter(layout, tuple(_checked(f"{name}, {key}", place, admissible.get(key))
                                      for (key, _), place in zip(layout, places, strict=True)), places)


def _checked(where: str, rows: Rows, one: MatrixSet | RealSpace | None) -> MatrixSet | None:
    if one is None or isinstance(one, RealSpace):
        return None
    if not isinstance(one, MatrixSet):
        raise ProblemError(f"{where}: expected a set of matrices such as Binary() or Box(-1, 1), found "
                           f"{one!r}")
    one = one.within(rows)
    try:
        one.check(*rows.size)
    except ProblemError as error:
        raise ProblemError(f"{where}: {error}") from error
    return one
