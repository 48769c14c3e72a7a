"""All that the maximization of the augmented Hamiltonian of an affine stage has to know of a trajectory.

For z = W x + b with the costate u at z, the state penalty is rho_state/2 mean |dW x + db|^2 and the costate
penalty rho_costate/2 mean |dW^T u|^2: moments of x and u (docs, "Affine stages").
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.affine.form import AffineForm

_ROUNDING = 16.0
"""Units of rounding of its mean by which a constant input may seem to vary: the mean of equal numbers is off
by a few."""


@dataclass(frozen=True)
class StageMoments:
    """Means over samples (and over positions, where a stage is applied at several of them); "stage": of the
    groups of every stage.

    gradient: G = mean u x^T.            bias_gradient: g = mean u.
    inputs: A_c = mean (x - s)(x - s)^T.  input_mean: s = mean x. Of one-hot x frequencies (stage, input) and
    0.
    costates: U = mean u u^T; where a place of x enters several rows the same with the u that reach it, by
    output and tap, in the place of u, as a sum over places divided by positions.
    positions: rows per sample; sums over positions are means times this.
    """

    gradient: Float[Tensor, "stage output input"]
    bias_gradient: Float[Tensor, "stage output"]
    inputs: Tensor
    input_mean: Float[Tensor, "stage input"]
    costates: Float[Tensor, "_ reach reach"]
    positions: int

    def tensors(self) -> list[Tensor]:
        """To be sent: from_tensors() makes it again."""
        found = [getattr(self, field.name) for field in fields(self)[:-1]]
        return [*found, self.gradient.new_full((1,), self.positions)]

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor]) -> "StageMoments":
        """The inverse of tensors()."""
        gradient, bias_gradient, inputs, input_mean, costates, positions = tensors
        return cls(gradient, bias_gradient, inputs, input_mean, costates, int(positions))

    @staticmethod
    def shapes(form: AffineForm, stages: int) -> list[torch.Size]:
        """Of the tensors, for so many stages."""
        groups, m, d = form.shape
        n, k = groups * stages, stages if form.map.joint else groups * stages
        inputs = (n, d) if form.map.one_hot else (n, d, d)
        return [torch.Size(shape)
                for shape in ((n, m, d), (n, m), inputs, (n, d), (k, form.reach, form.reach), (1,))]


def stage_moments(form: AffineForm, states: Sequence[Tensor],
                  next_costates: Sequence[Tensor]) -> StageMoments:
    """Of equal stages: states x_n and costates p_{n+1}, a tensor (sample, *state) for each."""
    u = torch.cat([form.outputs(costate) for costate in next_costates])
    positions = u.shape[1] // next_costates[0].shape[0]
    if form.map.one_hot:
        return _of_indices(form, torch.cat([form.rows(state) for state in states]).squeeze(2), u, positions)
    x = torch.cat([form.rows(state) for state in states])
    rows = x.shape[1]
    input_mean, bias_gradient = x.mean(1), u.mean(1)
    centred = x - input_mean.unsqueeze(1)
    costates = u.mT @ u if form.map.reaching is None else _reaching(form, states, next_costates)
    return settled(StageMoments(u.mT @ x / rows, bias_gradient, centred.mT @ centred / rows, input_mean,
                                costates / rows, positions))


def settled(moments: StageMoments) -> StageMoments:
    """Inputs that vary by rounding alone made constant, x_j = s_j in all rows: A_c is 0 there, G is g s^T.

    Without it what rounding leaves of G - g s^T, divided by what it leaves of A_c, is a change of any size.
    Inputs whose squares are below the numbers of their dtype are 0.
    """
    if moments.inputs.ndim == 2:  # one-hot: nothing is subtracted
        return moments
    variance, mean = moments.inputs.diagonal(dim1=1, dim2=2), moments.input_mean
    numbers = torch.finfo(mean.dtype)
    deviation = variance.sqrt()  # inf where squares overflow: not constant, and to be refused
    constant = (deviation.isfinite() & (deviation <= _ROUNDING * numbers.eps * mean.abs())
                | (variance < numbers.tiny))
    if not constant.any():
        return moments
    mean = mean.masked_fill(constant & (mean.square() < numbers.tiny), 0.0)
    gradient = moments.bias_gradient.unsqueeze(2) * mean.unsqueeze(1)
    return replace(moments, input_mean=mean,
                   inputs=moments.inputs.masked_fill(constant.unsqueeze(1) | constant.unsqueeze(2), 0.0),
                   gradient=torch.where(constant.unsqueeze(1), gradient, moments.gradient))


def _reaching(form: AffineForm, states: Sequence[Tensor], costates: Sequence[Tensor]) -> Tensor:
    """Sum over samples and places, a stage at a time: the rows of one are taps times as large as its
    costates."""
    assert form.map.reaching is not None
    each = (form.map.reaching(costate, state) for costate, state in zip(costates, states, strict=True))
    return torch.cat([rows.mT @ rows for rows in each])


def _of_indices(form: AffineForm, indices: Tensor, u: Tensor, positions: int) -> StageMoments:
    """Frequencies, and sums of u by index; indices have no costate that could change."""
    stages, rows, size = len(u), u.shape[1], form.shape[2]
    known = u if form.map.padding is None else u * (indices != form.map.padding).unsqueeze(2)
    ones = torch.ones_like(u[..., 0])
    places = indices.long()
    gradient = u.new_zeros(stages, size, u.shape[2]).scatter_add_(1, places.unsqueeze(2).expand_as(u), known)
    frequencies = u.new_zeros(stages, size).scatter_add_(1, places, ones)
    return StageMoments(gradient.mT / rows, u.mean(1), frequencies / rows, torch.zeros_like(frequencies),
                        u.new_zeros(stages, form.reach, form.reach), positions)


def merge_moments(parts: Sequence[StageMoments], rows: Sequence[int]) -> StageMoments:
    """The moments of all rows together, from those of disjoint parts with so many rows (or samples) each, all
    > 0."""
    if len(parts) == 1:
        return parts[0]
    weights = [count / sum(rows) for count in rows]

    def mean(values: Iterable[Tensor]) -> Tensor:
        return torch.stack([weight * value for weight, value in zip(weights, values, strict=True)]).sum(0)

    centre = mean(part.input_mean for part in parts)
    offsets = [part.input_mean - centre for part in parts]
    diagonal = parts[0].inputs.ndim == 2
    return settled(StageMoments(
        gradient=mean(part.gradient for part in parts),
        bias_gradient=mean(part.bias_gradient for part in parts),
        inputs=mean(part.inputs if diagonal else part.inputs + offset.unsqueeze(2) * offset.unsqueeze(1)
                    for part, offset in zip(parts, offsets, strict=True)),
        input_mean=centre,
        costates=mean(part.costates for part in parts),
        positions=parts[0].positions,
    ))


def quadratic_forms(form: AffineForm, moments: StageMoments,
                    weight_change: Float[Tensor, "stage output input"],
                    bias_change: Float[Tensor, "stage output"]) -> tuple[Tensor, Tensor, Tensor]:
    """<G, dW> + <g, db>, mean |dW x + db|^2 and the mean squared change of the costate, |dW^T u|^2 or its sum
    over overlapping patches, for each stage, means over samples."""
    linear = (moments.gradient * weight_change).sum((1, 2)) + (moments.bias_gradient * bias_change).sum(1)
    mean_change = torch.einsum("nij,nj->ni", weight_change, moments.input_mean) + bias_change
    spread = (weight_change * moments.inputs.unsqueeze(1) if moments.inputs.ndim == 2
              else weight_change @ moments.inputs)
    state = (spread * weight_change).sum((1, 2)) + mean_change.square().sum(1)
    moved = form.by_channel(weight_change)
    costate = ((moved @ moments.costates) * moved).sum((1, 2))
    costate = costate if form.map.joint else form.by_stage(costate)
    return (form.by_stage(linear) * moments.positions, form.by_stage(state) * moments.positions,
            costate * moments.positions)
