"""The exact quadratic model of the augmented Hamiltonian of an affine stage, through its moments.

For z = W x + b with the costate u at z, the state penalty is rho_state/2 mean |dW x + db|^2 and the costate
penalty rho_costate/2 mean |dW^T u|^2: moments of x and u are all that is needed (theory: README of this
project's documentation, "Affine stages").
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.problem import AffineForm
from pontryagin.trajectory import StageGroup


@dataclass(frozen=True)
class AffineMoments:
    """Means over samples (and over positions, where the stage is applied at several of them).

    gradient: G = mean u x^T.            bias_gradient: g = mean u.
    inputs: A_c = mean (x - s)(x - s)^T.  input_mean: s = mean x.
    positions: rows per sample; sums over positions are means times this.
    costates: U = mean u u^T; of a convolution the same with the u that reach a place of x, by output and tap,
    in the place of u (AffineForm.reaching), as a sum over places divided by positions.
    """

    gradient: Float[Tensor, "stage output input"]
    bias_gradient: Float[Tensor, "stage output"]
    inputs: Float[Tensor, "stage input input"]
    input_mean: Float[Tensor, "stage input"]
    costates: Float[Tensor, "stage reach reach"]
    positions: int


def affine_moments(group: StageGroup, form: AffineForm) -> AffineMoments:
    """The moments of a group of affine stages at its trajectory."""
    x = torch.stack([form.inputs(state) for state in group.states])
    u = torch.stack([form.adjoint(costate) for costate in group.next_costates])
    samples = x.shape[1]
    x, u = x.flatten(1, -2), u.flatten(1, -2)
    rows = x.shape[1]
    input_mean, bias_gradient = x.mean(1), u.mean(1)
    centred = x - input_mean.unsqueeze(1)
    return AffineMoments(
        gradient=u.mT @ x / rows,
        bias_gradient=bias_gradient,
        inputs=centred.mT @ centred / rows,
        input_mean=input_mean,
        costates=(u.mT @ u if form.reaching is None else _reaching_moment(group, form)) / rows,
        positions=rows // samples,
    )


def _reaching_moment(group: StageGroup, form: AffineForm) -> Float[Tensor, "stage reach reach"]:
    """Sum over samples and places, a stage at a time: the rows of one are taps times as large as its
    costates."""
    assert form.reaching is not None
    moments = []
    for costate, state in zip(group.next_costates, group.states, strict=True):
        rows = form.reaching(costate, state).flatten(0, -2)
        moments.append(rows.mT @ rows)
    return torch.stack(moments)


def merge_moments(parts: Sequence[AffineMoments], rows: Sequence[int]) -> AffineMoments:
    """The moments of all rows together, from those of disjoint parts with so many rows (or samples) each, all
    > 0."""
    if len(parts) == 1:
        return parts[0]
    weights = [count / sum(rows) for count in rows]

    def mean(values: Iterable[Tensor]) -> Tensor:
        return torch.stack([weight * value for weight, value in zip(weights, values, strict=True)]).sum(0)

    centre = mean(part.input_mean for part in parts)
    offsets = [part.input_mean - centre for part in parts]
    return AffineMoments(
        gradient=mean(part.gradient for part in parts),
        bias_gradient=mean(part.bias_gradient for part in parts),
        inputs=mean(part.inputs + offset.unsqueeze(2) * offset.unsqueeze(1)
                    for part, offset in zip(parts, offsets, strict=True)),
        input_mean=centre,
        costates=mean(part.costates for part in parts),
        positions=parts[0].positions,
    )


def quadratic_forms(form: AffineForm, moments: AffineMoments,
                    weight_change: Float[Tensor, "stage output input"],
                    bias_change: Float[Tensor, "stage output"]) -> tuple[Tensor, Tensor, Tensor]:
    """<G, dW> + <g, db>, mean |dW x + db|^2 and the mean squared change of the costate, |dW^T u|^2 or its sum
    over overlapping patches, for each stage, means over samples."""
    linear = (moments.gradient * weight_change).sum((1, 2)) + (moments.bias_gradient * bias_change).sum(1)
    mean_change = torch.einsum("nij,nj->ni", weight_change, moments.input_mean) + bias_change
    state = ((weight_change @ moments.inputs) * weight_change).sum((1, 2)) + mean_change.square().sum(1)
    moved = form.by_channel(weight_change)
    costate = ((moved @ moments.costates) * moved).sum((1, 2))
    return linear * moments.positions, state * moments.positions, costate * moments.positions
