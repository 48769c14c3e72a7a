"""Which step a stage takes, and in which metric, by how many rows it sees."""

import copy

import pytest
import torch
from torch import Tensor, nn

from pontryagin.affine.precision import coarse_products
from pontryagin.optim import EMSA
from pontryagin.optim.certainty import exponent_for, is_polar, worth
from pontryagin.optim.promise import certain


class OnPlaces(nn.Module):
    """A linear layer on every place of (batch, place, entry)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).mean(1)


def settings_of(model: nn.Module, x: Tensor) -> tuple[bool, float]:
    """Whether the step of its only stage is polar, and its exponent."""
    optimizer = EMSA(model)
    model(x).square().mean().backward()
    optimizer.step()
    weight = next(parameter for parameter in model.parameters() if parameter.ndim == 2)
    rows = optimizer.state[weight]["rows"].item()
    return is_polar(rows, True), exponent_for(rows, True)


@pytest.mark.parametrize(("samples", "polar", "exponent"),
                         [(11, False, 0.5), (12, True, 0.5), (47, True, 0.5), (48, True, 1.0)])
def test_whole_vectors_count_each(samples: int, polar: bool, exponent: float) -> None:
    assert settings_of(nn.Linear(6, 4), torch.randn(samples, 6)) == (polar, exponent)


@pytest.mark.parametrize(("samples", "places", "polar"), [(1, 11, False), (4, 3, True), (100, 50, True)])
def test_rows_of_sequences_never_make_the_exponent_one(samples: int, places: int, polar: bool) -> None:
    assert settings_of(OnPlaces(), torch.randn(samples, places, 6)) == (polar, 0.5)


def test_what_rows_are_worth() -> None:
    assert [worth(rows, 1.0) for rows in (0.5, 3.0, 50.0)] == [0.5, 3.0, 50.0]
    assert [worth(rows, 7.0) for rows in (0.5, 3.0, 50.0)] == [0.5, 3.0, 4.0]


@pytest.mark.parametrize(("module", "shape", "samples"), [
    (nn.Linear(6, 4), (11, 6), 11), (nn.Linear(6, 4), (5, 7, 6), 5), (nn.Conv2d(3, 4, 3), (5, 3, 8, 8), 5),
    (nn.BatchNorm2d(3), (5, 3, 4, 4), 5), (nn.Embedding(9, 4), (5, 7), 5)])
@pytest.mark.parametrize("passes", [1, 3])
def test_samples_are_counted(module: nn.Module, shape: tuple[int, ...], samples: int, passes: int) -> None:
    """Those of all passes of a step."""
    module = copy.deepcopy(module)
    optimizer = EMSA(module)
    for _ in range(passes):
        x = torch.randint(9, shape) if isinstance(module, nn.Embedding) else torch.randn(shape)
        module(x).square().mean().backward()
    optimizer.step()
    assert optimizer.state[module.weight]["samples"].item() == samples * passes


def test_what_a_step_promises_its_own_batch_counts_less_the_more_weights_there_are() -> None:
    assert [certain(100.0, 64, outputs) for outputs in (10, 64, 6400)] == [1.0, 1.0, 5000 / (64 * 6400)]


@pytest.mark.parametrize("raised", [False, True])
def test_coarse_products_leave_the_settings_as_they_were(raised: bool) -> None:
    backend = torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(backend, "fp32_precision") else "allow_tf32"
    before, inside = getattr(backend, name), []
    try:
        with coarse_products(torch.device("cuda")):
            inside.append(getattr(backend, name))
            if raised:
                raise RuntimeError
    except RuntimeError:
        assert raised
    assert inside == ["tf32" if name == "fp32_precision" else True]
    assert getattr(backend, name) == before
