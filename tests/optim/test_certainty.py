"""Which step a stage takes, and in which metric, by how many rows it sees."""

import pytest
import torch
from torch import Tensor, nn

from pontryagin.affine.precision import coarse_products
from pontryagin.optim import EMSA
from pontryagin.optim.certainty import exponent_for, is_polar, worth


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
    assert [worth(rows, False) for rows in (0.5, 3.0, 50.0)] == [0.5, 3.0, 50.0]
    assert [worth(rows, True) for rows in (0.5, 3.0, 50.0)] == [0.5, 3.0, 4.0]


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
