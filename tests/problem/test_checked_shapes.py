"""The tests run with shapes checked at every call of the core."""

import jaxtyping
import pytest
import torch

from builders import normal, tanh_problem
from pontryagin.hamiltonian import Penalties, hamiltonian
from pontryagin.problem import SquaredError
from pontryagin.update import ExtendedMSA


def test_a_wrong_shape_is_noticed() -> None:
    one = tanh_problem().stages[0]
    x = normal(4, 3)
    assert hamiltonian(one, one.start, x, x).shape == (4,)
    with pytest.raises(jaxtyping.TypeCheckError, match="control"):
        hamiltonian(one, one.start[None], x, x)


def test_an_integer_where_a_float_is_needed_is_noticed() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="state"):
        SquaredError()(torch.arange(3), normal(3))


def test_an_axis_has_one_size_in_arguments_and_result() -> None:
    twice = SquaredError(lambda state: torch.cat([state, state]))
    with pytest.raises(jaxtyping.TypeCheckError, match="sample"):
        twice(normal(3, 2), normal(6, 2))
    assert SquaredError()(normal(6, 2), normal(6, 2)).shape == (6,), "the next call is free"


def test_what_names_no_shape_is_checked_too() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="problem"):
        ExtendedMSA("problem")  # type: ignore[arg-type]
    with pytest.raises(jaxtyping.TypeCheckError, match="rho_state"):
        Penalties("much", 0.0)  # type: ignore[arg-type]
