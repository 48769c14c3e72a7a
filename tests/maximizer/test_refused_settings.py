"""Settings and stages that a maximizer cannot take are refused by name."""

from collections.abc import Callable

import pytest
import torch

from builders import BOTH, groups_of, linear_problem, normal, tanh_problem
from pontryagin.maximizer import LBFGS, ByForm, ClosedForm, GaussNewton, GradientAscent, RowGaussNewton
from pontryagin.problem import ProblemError
from pontryagin.trajectory import StageGroup


@pytest.mark.parametrize(("make", "message"), [
    (lambda: GradientAscent(0.0), "learning_rate: expected a finite number > 0, found 0"),
    (lambda: GradientAscent(float("nan")), "learning_rate: .* found nan"),
    (lambda: ClosedForm(-1e-3), "damping: expected a finite number >= 0, found -0.001"),
    (lambda: ClosedForm(float("inf")), "damping: .* found inf"),
    (lambda: GaussNewton(0.0), "damping: expected a finite number > 0, found 0"),
    (lambda: GaussNewton(-1.0), "damping: .* found -1"),
    (lambda: RowGaussNewton(float("nan")), "damping: .* found nan"),
    (lambda: LBFGS(0), "LBFGS iterations: expected a number >= 1, found 0"),
    (lambda: LBFGS(history_size=0), "LBFGS history_size: .* found 0"),
    (lambda: LBFGS(searches=-3), "LBFGS searches: .* found -3"),
])
def test_settings(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        make()


def test_closed_form_needs_an_affine_stage() -> None:
    (group,) = groups_of(tanh_problem())
    with pytest.raises(ProblemError,
                       match=r"affine in its control, but euler 0: TanhAffine is not.*split_euler"):
        ClosedForm().model(group)


def quartic(control: torch.Tensor) -> torch.Tensor:
    return control.pow(4).sum(-1)


def test_closed_form_needs_a_quadratic_running_cost() -> None:
    (group,) = groups_of(linear_problem(cost=quartic))
    with pytest.raises(ProblemError,
                       match="takes no running cost or a Quadratic one, but Linear has <function quartic"):
        ClosedForm().model(group)


def test_other_maximizers_take_any_running_cost() -> None:
    (group,) = groups_of(linear_problem(cost=quartic))
    assert torch.isfinite(LBFGS().model(group).maximize(BOTH)).all()


def test_by_form_chooses_by_the_form() -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def model(self, group: StageGroup) -> object:
            return ClosedForm().model(group) if self.name == "affine" else LBFGS().model(group)

    chosen = ByForm(affine=Named("affine"), small=Named("small"), other=Named("other"))
    (affine,), (small,), (other,) = (groups_of(made) for made in (linear_problem(), tanh_problem(),
                                                                  tanh_problem(width=6)))
    assert type(chosen.model(affine)) is type(ClosedForm().model(affine))
    assert type(chosen.model(other)) is type(LBFGS().model(other))
    assert chosen.choice(small.stage) is chosen.small
    assert chosen.choice(other.stage) is chosen.other


def test_a_gradient_step_is_the_rate_times_the_gradient_whatever_the_penalties() -> None:
    (group,) = groups_of(tanh_problem())
    model = GradientAscent(0.25).model(group)
    assert torch.equal(model.maximize(BOTH), group.control + 0.25 * model.gradient)
    assert float(normal(1).abs()) > 0
