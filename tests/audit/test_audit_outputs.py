"""Outputs of every shape: a number a sample, one in an axis of its own, several positions."""

import pytest
import torch
from torch import Tensor, nn

from pontryagin.audit import audit
from pontryagin.problem import ProblemError

Pairs = list[tuple[Tensor, Tensor]]


def model_with(*ends: nn.Module, outputs: int) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, outputs), *ends).double()


def batches_of(*shape: int) -> Pairs:
    generator = torch.Generator().manual_seed(5)
    return [tuple(torch.randn(6 + n % 2, *size, generator=generator, dtype=torch.float64)
                  for size in ((8,), shape))
            for n in range(4)]


@pytest.mark.parametrize(("ends", "outputs", "shape"), [
    ([nn.Flatten(0)], 1, ()),
    ([], 1, (1,)),
    ([nn.Unflatten(1, (3, 4))], 12, (3, 4)),
    ([nn.Unflatten(1, (5, 6))], 30, (5, 6)),  # more than as many directions as are taken
], ids=["(batch,)", "(batch, 1)", "(batch, t, c)", "(batch, t, c), many"])
def test_outputs_of_any_shape(ends: list[nn.Module], outputs: int, shape: tuple[int, ...]) -> None:
    """The numbers are those of the same outputs as (batch, components)."""
    batches, model = batches_of(*shape), model_with(*ends, outputs=outputs)
    flat = model_with(outputs=outputs)
    found = audit(model, "squared-error", batches)
    same = audit(flat, "squared-error", [(x, y.reshape(len(y), -1)) for x, y in batches])
    assert len(found.stages) == 2
    for one, other in zip(found.stages, same.stages, strict=True):
        assert one.gain == pytest.approx(other.gain, rel=1e-9)
        assert [each.predicted for each in one.restrictions] == pytest.approx(
            [each.predicted for each in other.restrictions], rel=1e-9)
        assert [each.true for each in one.restrictions] == pytest.approx(
            [each.true for each in other.restrictions], rel=1e-9)
    if outputs <= 16:  # a last stage without an activation is predicted exactly
        for each in found.stages[-1].restrictions:
            assert each.predicted == pytest.approx(each.true, rel=1e-9)


def test_one_number_a_sample_where_z_cannot_be_watched() -> None:
    class Twice(nn.Module):
        """The weight works outside of its module too, so its stage is done by differences."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(8, 8), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.layer(x) @ self.layer.weight)).squeeze(1)

    torch.manual_seed(3)
    found = audit(Twice().double(), lambda out, y: (out - y).square(), batches_of())
    assert [stage.name for stage in found.stages] == ["layer.weight", "head.weight"]
    assert all(stage.gain is not None and stage.restrictions for stage in found.stages)


@pytest.mark.parametrize("ends", [[nn.Flatten(0)], [nn.Flatten(0), nn.Unflatten(0, (3, -1))]])
def test_outputs_without_an_axis_of_samples_are_refused(ends: list[nn.Module]) -> None:
    with pytest.raises(ProblemError, match="6 samples along the first axis"):
        audit(model_with(*ends, outputs=3), lambda out, y: out.square().mean(), batches_of())
