"""2:4 along the input channels of a tap also where a convolution's weight comes as a matrix."""

import torch

from pontryagin.problem.admissible import TwoFourSparse


def test_a_view_tells_the_taps_and_a_copy_does_not() -> None:
    torch.manual_seed(0)
    weight = torch.randn(8, 8, 3, 3)
    found = TwoFourSparse().project(weight.flatten(1))
    assert torch.equal(found, TwoFourSparse(taps=9).project(weight.flatten(1).clone()))
    assert not torch.equal(found, TwoFourSparse().project(weight.flatten(1).clone()))
    weight.copy_(found.view_as(weight))
    assert TwoFourSparse().contains(weight.flatten(1))
    assert TwoFourSparse(taps=1).project(weight.flatten(1)).count_nonzero() < found.count_nonzero()


def test_a_matrix_that_is_part_of_something_else_is_that_of_a_linear_layer() -> None:
    stacked = torch.randn(3, 4, 8)
    assert torch.equal(TwoFourSparse().project(stacked[1]), TwoFourSparse(taps=1).project(stacked[1].clone()))
