"""Numbers as arrays and as tensors: one formula, one result; and the sizes of gradients."""

from math import inf, isnan, nan

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optim_builders import loss_of, vectors
from torch import nn

from pontryagin.optim import EMSA, compiled, joined, numbers, packed, passes, polar_step, row_step
from pontryagin.optim.gradients import largest_entries, sizes
from pontryagin.optim.joined import Segments
from pontryagin.optim.numbers import Numbers

any_number = st.floats(width=32)
pairs = st.lists(st.tuples(any_number, any_number, any_number), min_size=1, max_size=5)


def same(found: Numbers, expected: torch.Tensor) -> None:
    assert isinstance(found, np.ndarray)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-15, atol=0, equal_nan=True)


@given(values=pairs)
def test_arrays_are_tensors(values: list[tuple[float, float, float]]) -> None:
    """NaN and infinity too."""
    tensors = list(torch.tensor(values, dtype=torch.float64).T.contiguous())
    a, b, c = map(numbers.of, tensors)
    x, y, z = tensors
    with numbers.quiet():
        same(numbers.maximum(a, b), numbers.maximum(x, y))
        same(numbers.where(a <= b, inf, c), numbers.where(x <= y, inf, z))
        same(numbers.clip(a, None, 1), numbers.clip(x, None, 1))
        same(numbers.clip(a, 0, None), numbers.clip(x, 0, None))
        same(numbers.sqrt(a), numbers.sqrt(x))
        same(numbers.cat([a, b]), numbers.cat([x, y]))
        same(numbers.full(a, 3, 0.5), numbers.full(x, 3, 0.5))
        same(numbers.as_type(a, numbers.of(x.float())), numbers.as_type(x, x.float()))


def test_the_same_memory() -> None:
    tensor = torch.zeros(3)
    numbers.write(np.ones(3), numbers.of(tensor))
    assert tensor.tolist() == [1, 1, 1]
    assert numbers.tensor(numbers.of(tensor)).data_ptr() == tensor.data_ptr()


def test_reading_keeps_the_order() -> None:
    mixed = [torch.tensor(1.0), np.float64(2), torch.tensor(3, dtype=torch.bfloat16), torch.tensor(True), 4.0]
    assert numbers.read(mixed) == [1, 2, 3, 1, 4]
    assert numbers.read([]) == []


@pytest.mark.parametrize(("lengths", "padded"), [([2, 3, 1], [2, 3, 1]), ([2, 3, 1], [3, 3, 3]),
                                                 ([2, 1], [2, 4])])
def test_segments(lengths: list[int], padded: list[int]) -> None:
    segments = Segments(lengths, padded, torch.device("cpu"))
    assert len(segments) == sum(padded)
    values = np.arange(1.0, len(lengths) + 1)
    inside = segments.spread_inside(values)
    assert inside.sum() == (values * lengths).sum()
    assert segments.reduced(inside).tolist() == (values * lengths).tolist()
    assert segments.reduced(inside, "mean").tolist() == values.tolist()
    assert segments.reduced(inside, "max").tolist() == values.tolist()
    found = segments.spread(torch.from_numpy(values))
    assert found.tolist() == segments.spread(values).tolist()
    assert segments.reduced(found).tolist() == segments.reduced(segments.spread(values)).tolist()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-7, 1.0, 1e3, 1e30])
def test_sizes_lie_between_the_largest_entry_and_the_norm(dtype: torch.dtype, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [(scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)
                 for shape in ((7, 5), (1,), (1, 1))]
    if not all(one.isfinite().all() for one in gradients):
        scale = inf
    for found, gradient, largest in zip(sizes(gradients), gradients, largest_entries(gradients),
                                        strict=True):
        if scale == inf:  # no number of this type
            assert not found < inf
            continue
        assert found >= largest * (1 - 1e-2)
        assert found <= max(largest, 1.01 * gradient.double().norm().item())
        assert (found == 0) == (not gradient.any())


@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_sizes_of_what_is_no_number(bad: float) -> None:
    found = sizes([torch.ones(3), torch.tensor([1.0, bad]), torch.ones(2)])
    assert [isnan(one) or one == inf for one in found] == [False, True, False]
    assert sizes([]) == []
    assert sizes([torch.ones(0), torch.ones(2)]) == [0, 1]
    assert sizes([torch.ones(3, 2).to_sparse()]) == [1]


@pytest.mark.parametrize("rows", [5, 40])
def test_steps_with_tensors_are_those_with_arrays(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device, where numbers stay tensors: by rows and with many of them."""
    def trained() -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 6, bias=False),
                              nn.ReLU(), nn.Linear(6, 3)).double()
        optimizer = EMSA(model, [{"params": [*model[0].parameters(), *list(model.parameters())[2:-1]]},
                                 {"params": [model[-1].bias], "lr": 0.01}])
        for step in range(30):
            optimizer.zero_grad()
            loss = loss_of(model, *vectors(rows, seed=step))
            loss.backward()
            optimizer.step(loss=loss)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    arrays = trained()
    for module in (numbers, joined, packed, passes, polar_step, row_step):
        monkeypatch.setattr(module, "of", lambda values: values)
    monkeypatch.setattr(compiled, "fits", lambda values: False)
    torch.testing.assert_close(trained(), arrays, rtol=1e-5, atol=1e-7)
