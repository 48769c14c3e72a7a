"""The metric of a pack whose directions of the inputs have a rho of their own (directions.py)."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from pontryagin.affine import Factor, Scaled
from pontryagin.optim.directions import QUARTER
from pontryagin.optim.group import StageGroup
from pontryagin.optim.packed_metric import Measure, PackedMetric, Subspace, Whole


def along_directions(quarter: PackedMetric, parts: Sequence[StageGroup], places: Sequence[slice],
                     mean: Tensor, has_bias: bool, damping: float) -> PackedMetric:
    """Of groups with these places in a pack. quarter: its metric with that exponent, whose form this has;
    mean: (s, 0), (group, 1, column)."""
    squares = parts[0].first.state.square.dtype
    if isinstance(quarter, Subspace):
        metric = parts[0].metric
        assert isinstance(metric, Factor)
        own = parts[0].input_lengths(damping).to(mean.dtype)
        own = nn.functional.pad(own, (0, 1), value=1.0) if has_bias else own
        inside, tail = metric.power(damping, QUARTER).inside[:, 0].to(squares), metric.tail.to(squares)
        return replace(
            quarter, outside=quarter.outside * own.unsqueeze(1), left=quarter.left * own.unsqueeze(2),
            measure=Measure((metric.values.to(squares) - tail[:, None]) * inside * inside, tail))
    assert isinstance(quarter, Whole)
    product = quarter.product.new_zeros(quarter.product.shape)
    count, inputs = len(mean), mean.shape[2] - has_bias
    worth = mean.new_zeros(count, inputs, dtype=squares)
    for part, place in zip(parts, places, strict=True):
        own_inputs, metric = part.first.stage.inputs, part.metric
        assert isinstance(metric, Factor | Scaled)
        product[place, :own_inputs, :own_inputs] = part.product(damping)
        unit = metric.unit[:, 0].to(squares).square() if isinstance(metric, Scaled) else 1.0
        worth[place, :own_inputs] = metric.mean_diagonal.to(squares)[:, None] * unit
    if has_bias:
        product[..., :-1, -1:] = -(product[..., :-1, :-1] @ mean[..., :inputs].mT)
        product[..., -1, -1] = 1
    return replace(quarter, product=product, measure=Measure(worth, worth.new_zeros(count)))
