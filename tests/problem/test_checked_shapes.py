"""The tests run with shapes checked at every call of the core."""

import jaxtyping
import pytest
import torch

from builders import normal, tanh_problem
from pontryagin.hamiltonian import hamiltonian
from pontryagin.problem import SquaredError


def test_a_wrong_shape_is_noticed() -> None:
    one = tanh_problem().stages[0]
    x = normal(4, 3)
    assert hamiltonian(one, one.start, x, x).shape == (4,)
    with pytest.raises(jaxtyping.TypeCheckError, match="control"):
        hamiltonian(one, one.start[None], x, x)


def test_an_integer_where_a_float_is_needed_is_noticed() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="state"):
        SquaredError()(torch.arange(3), normal(3))
