"""The length of a step from the estimate: exact on a quadratic loss, monotone on any, nothing to tune."""

from itertools import pairwise
from typing import Any

import pytest
from optim_builders import loss_of, mlp, vectors
from torch import Tensor, nn

from pontryagin.optim import EMSA, AcceptanceRule, EstimatedAcceptance
from pontryagin.problem import ProblemError


def trained(model: nn.Module, steps: int, rule: AcceptanceRule, **options: Any
            ) -> tuple[list[float], EMSA, int]:
    """Losses before each step and after the last, the optimizer, and how often the closure was called."""
    optimizer, calls = EMSA(model, acceptance=rule, **options), 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        optimizer.zero_grad()
        loss = loss_of(model, *vectors())
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(steps)]
    return [*losses, loss_of(model, *vectors()).item()], optimizer, calls


@pytest.mark.parametrize("lr", [0.003, 0.03, 5.0, 1000.0])
def test_the_loss_never_rises(lr: float) -> None:
    losses, _, _ = trained(mlp(), 25, EstimatedAcceptance(), lr=lr)
    assert all(after <= before for before, after in pairwise(losses))
    assert losses[-1] < 0.7 * losses[0]


def test_rates_that_the_rule_has_to_mend_come_close_to_a_good_one() -> None:
    """0.03 is the optimizer's default; a rate 300 times that would diverge by itself."""
    ends = [trained(mlp(), 40, EstimatedAcceptance(), lr=lr)[0][-1] for lr in (0.01, 0.03, 10.0)]
    assert max(ends) < 0.1 * loss_of(mlp(), *vectors()).item(), ends


def test_on_a_quadratic_loss_the_length_is_the_one_of_least_loss() -> None:
    """J(t) = J - a t + c t^2 measured at any t gives t* = a / (2 c)."""
    rule, slope, curvature = EstimatedAcceptance(rho_decay=0.01), 3.0, 0.5
    for length in (0.1, 1.0, 5.0, 40.0):
        loss = 10.0
        trial = loss - slope * length + curvature * length**2
        accepted, following = rule.judge(length, slope * length, loss, trial)
        assert accepted == (trial < loss)
        assert following == pytest.approx(min(slope / (2 * curvature), length / 0.01) if accepted else 4.0)


def test_remembers_the_largest_estimate_and_forgets_it_slowly() -> None:
    rule = EstimatedAcceptance(rho_decay=0.8)
    # nearly as predicted: longer, but slowly
    assert rule.judge(1.0, 1.0, 5.0, 4.001)[1] == pytest.approx(1.25)
    assert rule.judge(1.0, 1.0, 5.0, 4.75)[1] == pytest.approx(2 / 3)  # c = 0.75: shorter at once
    assert EstimatedAcceptance(rho_decay=1.0).judge(1.0, 1.0, 5.0, 4.001) == (True, 1.0)
    assert EstimatedAcceptance(longest=1.1).judge(1.0, 1.0, 5.0, 4.001) == (True, 1.1)


def test_rises_are_rejected_whatever_was_predicted() -> None:
    rule = EstimatedAcceptance()
    assert rule.judge(1.0, -1.0, 5.0, 5.1) == (False, 0.1)
    assert rule.judge(1.0, 1.0, 5.0, float("nan")) == (False, 0.1)
    assert rule.judge(1.0, 1.0, 5.0, float("inf")) == (False, 0.1)
    assert rule.judge(1.0, 1.0, 5.0, 6.0) == (False, 0.25)
    assert rule.judge(1.0, -1.0, 5.0, 4.9)[0]
    assert not rule.judge(1.0, 1.0, 5.0, 5.0)[0]  # promised one, did nothing


def test_a_loss_at_its_rounding_says_nothing_of_the_curvature() -> None:
    accepted, following = EstimatedAcceptance().judge(1.0, 1e-9, 1.0, 1.0 - 1e-10)
    assert accepted
    assert following == pytest.approx(1.25)


def test_a_restored_optimizer_goes_on_with_the_same_length() -> None:
    model = mlp()
    _, optimizer, _ = trained(model, 5, EstimatedAcceptance())
    other = EMSA(model, acceptance=EstimatedAcceptance())
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["step_scale"] == optimizer.param_groups[0]["step_scale"] != 1.0


@pytest.mark.parametrize("options", [{"rho_decay": 0.0}, {"rho_decay": 1.1}, {"sufficient": 0.5},
                                     {"longest": 0.0}, {"attempts": 0}])
def test_refused_settings(options: dict[str, Any]) -> None:
    with pytest.raises(ProblemError, match="EstimatedAcceptance: expected"):
        EstimatedAcceptance(**options)
