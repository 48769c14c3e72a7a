"""How strong the costate penalty is beside the state penalty: by the scale of the costates."""

from collections.abc import Sequence

from pontryagin.maximizer import HamiltonianModel


def costate_ratio(models: Sequence[HamiltonianModel], weight: float = 1.0) -> float:
    """rho_costate / rho_state = weight * min(1, 1 / mean |p|^2).

    As strong as the state penalty when costates are small, weaker while they are large (as at the start of a
    training, when it would forbid all change).
    """
    square = costate_square(models)
    return weight * min(1.0, 1.0 / square if square > 0 else 1.0)


def costate_square(models: Sequence[HamiltonianModel]) -> float:
    """Mean over stages and samples of |p_{n+1}|^2; of an affine stage only the part that its outputs see."""
    squares = [model.group.costate_squares for model in models]
    return sum(float(each.sum()) for each in squares) / sum(len(each) for each in squares)
