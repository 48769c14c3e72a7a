"""Sets of matrices as a set of whole controls: which parameter of a stage lies in which set."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pontryagin.problem.admissible.protocol import AdmissibleSet, MatrixSet
from pontryagin.problem.admissible.real_space import RealSpace
from pontryagin.problem.errors import ProblemError

Layout = tuple[tuple[str, torch.Size], ...]
Admissible = AdmissibleSet | MatrixSet | Mapping[str, MatrixSet | RealSpace]
"""A set of controls; a set of matrices, for every parameter with two axes or more; or sets by the parameters' names."""


@dataclass(frozen=True)
class PerParameter:
    """Theta is the product of a set for each parameter of the layout; None stands for R^p."""

    layout: Layout
    sets: tuple[MatrixSet | None, ...]

    @property
    def unconstrained(self) -> bool:
        """Whether no parameter is constrained."""
        return all(one is None for one in self.sets)

    def project(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage control"]:
        """Every parameter projected onto its own set."""
        return torch.cat([piece if one is None else one.project(as_matrix(piece, shape)).flatten(-2)
                          for piece, (_, shape), one in self._pieces(control)], -1)

    def contains(self, control: Float[Tensor, "*stage control"]) -> Bool[Tensor, "*stage"]:
        """Whether every parameter lies in its set, exactly."""
        inside = [piece.isfinite().all(-1) if one is None else one.contains(as_matrix(piece, shape))
                  for piece, (_, shape), one in self._pieces(control)]
        return torch.stack(inside).all(0)

    def __repr__(self) -> str:
        named = [f"{name}: {one!r}" for (name, _), one in zip(self.layout, self.sets, strict=True) if one is not None]
        return "{" + ", ".join(named) + "}"

    def _pieces(self, control: Tensor) -> list[tuple[Tensor, tuple[str, torch.Size], MatrixSet | None]]:
        pieces = torch.split_with_sizes(control, [prod(shape) for _, shape in self.layout], -1)
        return list(zip(pieces, self.layout, self.sets, strict=True))


def matrix_shape(shape: torch.Size) -> tuple[int, int]:
    """(row, input) of a parameter: the first axis and the product of the others; a vector or number is one row."""
    return (shape[0], prod(shape[1:])) if len(shape) > 1 else (1, prod(shape))


def as_matrix(piece: Float[Tensor, "*stage entries"], shape: torch.Size) -> Float[Tensor, "*stage row input"]:
    """A flat parameter as the matrix that sets see."""
    return piece.unflatten(-1, matrix_shape(shape))


def admissible_set(name: str, layout: Layout, admissible: Admissible) -> AdmissibleSet:
    """What a stage with this name and layout makes of a request. ProblemError, naming the stage, when it cannot take it."""
    if isinstance(admissible, MatrixSet):
        matrices = [key for key, shape in layout if len(shape) > 1]
        if not matrices:
            known = ", ".join(key for key, _ in layout) or "none"
            raise ProblemError(f"{name} has no matrix for {admissible!r} to apply to (its parameters: {known}); name the "
                               "parameter: admissible={name: set}")
        admissible = dict.fromkeys(matrices, admissible)
    if not isinstance(admissible, Mapping):
        if not isinstance(admissible, AdmissibleSet):
            raise ProblemError(f"{name}: expected an admissible set such as RealSpace(), found {admissible!r}")
        return admissible
    unknown = sorted(set(admissible) - {key for key, _ in layout})
    if unknown:
        raise ProblemError(f"{name}: admissible names {', '.join(map(repr, unknown))}, but the parameters are "
                           f"{', '.join(key for key, _ in layout) or 'none'}")
    return PerParameter(layout, tuple(_checked(name, key, shape, admissible.get(key)) for key, shape in layout))


def _checked(name: str, key: str, shape: torch.Size, one: MatrixSet | RealSpace | None) -> MatrixSet | None:
    if one is None or isinstance(one, RealSpace):
        return None
    if not isinstance(one, MatrixSet):
        raise ProblemError(f"{name}, {key}: expected a set of matrices such as Binary() or Box(-1, 1), found {one!r}")
    try:
        one.check(*matrix_shape(shape))
    except ProblemError as error:
        raise ProblemError(f"{name}, {key}: {error}") from error
    return one
