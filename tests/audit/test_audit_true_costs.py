"""True costs are measured on several batches at a time only where that changes nothing."""

import pytest
import torch
from torch import Tensor, nn

from pontryagin.audit import audit


class Mean(nn.Module):
    """Samples are not independent: the batch's mean is taken off."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Pool(nn.Module):
    """Sequences of any length to their mean."""

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh().mean(1)


def batches(lengths: list[int], sequences: bool) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(length, 2 + number, 6) if sequences else torch.randn(length, 6),
             torch.randint(3, (length,)))
            for number, length in enumerate(lengths)]


def replaced(model: nn.Module, number: int, data: list[tuple[Tensor, Tensor]]) -> float:
    """The loss that 50 % sparse weights of one layer add, batch after batch."""
    samples = sum(len(y) for _, y in data)

    def loss() -> float:
        with torch.no_grad():
            return sum(len(y) * nn.functional.cross_entropy(model(x), y).item() for x, y in data) / samples

    weight = model[number].weight
    before, kept = loss(), weight.detach().clone()
    places = kept.abs().topk(kept.shape[1] // 2, 1).indices
    with torch.no_grad():
        weight.copy_(torch.zeros_like(kept).scatter(1, places, kept.gather(1, places)))
    after = loss()
    with torch.no_grad():
        weight.copy_(kept)
    return after - before


@pytest.mark.parametrize(("middle", "lengths"),
                         [(nn.Tanh(), [9, 9, 4, 9, 9, 7]), (Mean(), [9, 9, 9, 9, 9]), (Pool(), [9] * 6),
                                                 (nn.BatchNorm1d(8, track_running_stats=False),
                                                  [9, 9, 5, 9])])
def test_as_batch_after_batch(middle: nn.Module, lengths: list[int]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), middle, nn.Linear(8, 3)).eval()
    data = batches(lengths, isinstance(middle, Pool))
    result = audit(model, "cross-entropy", data, sets=("50%",))
    found = {stage.name: stage.restrictions[0].true for stage in result.stages if stage.restrictions}
    assert found["0.weight"] == pytest.approx(replaced(model, 0, data), abs=1e-5)
    assert found["2.weight"] == pytest.approx(replaced(model, 2, data), abs=1e-5)
