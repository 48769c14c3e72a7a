"""The panel's arithmetic, against curves made by hand."""

from math import exp, inf

import pytest

from pontryagin.bench.panel.contest import Contest, curve, middle, summarize
from pontryagin.bench.panel.ratio import LEAST, MOST, Curve, Ratio, geometric, sooner
from pontryagin.bench.panel.regret import summarize as summarize_regret
from pontryagin.bench.panel.trial import Outcome, warmed
from pontryagin.bench.panel.tuning import Choice, rate_at, tune

RIVAL = Curve((0, 25, 50, 75, 100), (0.0, 10.0, 20.0, 30.0, 40.0), (4.0, 2.0, 1.0, 0.6, 0.5))


def test_between_points_the_logarithm_of_the_loss_is_linear():
    found = Curve((0, 10, 20), (0.0, 2.0, 6.0), (exp(2), exp(1), exp(-1)))
    assert found.time_to(exp(1.5)) == pytest.approx(1.0)
    assert found.time_to(1.0) == pytest.approx(4.0)
    assert found.time_to(exp(2)) == 0.0
    assert found.time_to(exp(-1)) == pytest.approx(6.0)
    assert found.time_to(0.1) is None
    assert [found.loss_at(time) for time in (0.0, 5.9, 6.0)] == [exp(2), exp(1), exp(-1)]
    assert Curve((0, 1), (0.0, 1.0), (1.0, -1.0)).time_to(0.0) == pytest.approx(0.5)


def test_a_ratio_is_the_rivals_time_over_emsas():
    emsa = Curve((0, 50, 100), (0.0, 10.0, 50.0), (4.0, 1.0, 0.25))
    assert sooner(emsa, RIVAL, 0.5) == Ratio(pytest.approx(20.0 / 10.0))
    assert sooner(emsa, RIVAL, 1.0) == Ratio(pytest.approx(40.0 / 30.0))
    assert sooner(emsa, RIVAL, 0.25) == Ratio(pytest.approx(10.0 / 5.0))


def test_the_rivals_time_is_the_first_at_which_it_was_there():
    rival = Curve((0, 50, 75, 100), (0.0, 20.0, 30.0, 40.0), (4.0, 0.5, 0.7, 0.5))
    emsa = Curve((0, 100), (0.0, 20.0), (4.0, 0.5))
    assert sooner(emsa, rival, 1.0) == Ratio(pytest.approx(1.0))


def test_where_emsa_never_comes_a_longer_run_or_a_bound_counts():
    emsa = Curve((0, 100), (0.0, 50.0), (4.0, 0.6))
    assert sooner(emsa, RIVAL, 1.0) == Ratio(pytest.approx(0.8), True)
    longer = Curve((0, 130), (0.0, 65.0), (4.0, 0.5))
    assert sooner(emsa, RIVAL, 1.0, longer) == Ratio(pytest.approx(40 / 65))
    quick = Curve((0, 130), (0.0, 45.0), (4.0, 0.5))
    assert sooner(emsa, RIVAL, 1.0, quick) == Ratio(pytest.approx(0.8)), "no more than its own run allows"
    behind = Curve((0, 130), (0.0, 65.0), (4.0, 0.55))
    assert sooner(emsa, RIVAL, 1.0, behind) == Ratio(pytest.approx(40 / 65), True)
    assert sooner(None, RIVAL, 1.0) == Ratio(0.0, True)
    assert str(Ratio(0.8, True)) == "< 0.80"
    cheap = Curve((0, 8), (0.0, 5.0), (8.0, 3.0))
    assert sooner(cheap, RIVAL, 1.0) == Ratio(1.0, True)  # never there, so not sooner


def test_geometric_means_count_failures_within_bounds():
    assert geometric([4.0, 1.0]) == pytest.approx(2.0)
    assert geometric([0.0, 4.0]) == pytest.approx((LEAST * 4) ** 0.5)
    assert geometric([inf, 0.25]) == pytest.approx((MOST / 4) ** 0.5)


def test_a_median_of_ratios_is_a_bound_where_its_middle_is_one():
    assert middle([Ratio(2.0), Ratio(0.5, True), Ratio(1.0)]) == Ratio(1.0)
    assert middle([Ratio(2.0), Ratio(0.5, True), Ratio(0.6, True)]) == Ratio(0.6, True)


def outcome(points, yardstick=0.5, ended="complete"):
    return Outcome(ended, points[-1][1], yardstick, tuple(points))


def test_a_contest_compares_with_the_rival_of_the_least_end_loss_in_units_of_the_yardstick():
    runs = {"adamw": [outcome([(0, 0.0, 4.0), (100, 10.0, 1.0)])],
            "muon": [outcome([(0, 0.0, 4.0), (50, 12.0, 0.5)])],
            "emsa": [outcome([(0, 0.0, 4.0), (80, 12.0, 0.5)], yardstick=1.0)]}
    runs["emsa-tuned"] = runs["emsa"]
    choices = dict.fromkeys(runs, Choice(0.01))
    found = summarize(Contest(choices, runs, {"emsa": [None], "emsa-tuned": [None]}, {}))
    assert found["best_rival"] == "muon"
    assert found["emsa"]["end"] == [{"value": pytest.approx(2.0), "bound": False}]
    assert found["emsa"]["least_of_rivals"] == pytest.approx(2.0)
    assert found["cost"]["emsa"] == pytest.approx(12 / 80)
    assert found["emsa"]["loss_at_equal_seconds"] == [pytest.approx(1.0)]


def test_a_rival_that_failed_loses():
    failed = outcome([(0, 0.0, 4.0)], ended="not finite: the loss")
    assert curve(failed) is None
    assert failed.loss == inf
    runs = {"adamw": [failed], "emsa": [outcome([(0, 0.0, 4.0), (10, 1.0, 1.0)])]}
    runs["emsa-tuned"] = [failed]
    choices = dict.fromkeys(runs, Choice(0.01))
    found = summarize(Contest(choices, runs, {"emsa": [None], "emsa-tuned": [None]}, {}))
    assert found["emsa"]["end"][0]["value"] == inf
    assert found["failed"]["adamw"] == ["not finite: the loss"]


def test_regret_is_iterations_at_the_default_over_the_soonest_rates():
    runs = {0.03: outcome([(0, 0.0, 4.0), (100, 1.0, 1.0)]),
            0.1: outcome([(0, 0.0, 4.0), (50, 1.0, 1.0), (100, 2.0, 0.5)]),
            0.3: outcome([(0, 0.0, 4.0)], ended="not finite: the loss")}
    found = summarize_regret(runs)
    assert found["regret"] == pytest.approx(2.0)
    assert found["best_rate"] == 0.1
    assert summarize_regret(runs | {0.1: outcome([(0, 0.0, 4.0), (100, 2.0, 1.5)])})["regret"] == 1.0
    runs[0.03] = outcome([(0, 0.0, 4.0)], ended="not finite: the loss")
    assert summarize_regret(runs)["regret"] == inf


def tuned(losses, stages=("rate", "decay", "warm-up"), method="adamw"):
    asked = []

    def score(choice):
        if choice not in asked:
            asked.append(choice)
        return losses(choice)

    return tune(method, stages, score), asked


def test_the_grid_grows_until_its_best_is_inside():
    found, asked = tuned(lambda choice: abs(choice.rate - 0.3), ("rate",))
    assert found == Choice(0.3)
    assert [one.rate for one in asked] == [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
    found, asked = tuned(lambda choice: inf if choice.rate > 1e-5 else choice.rate, ("rate",))
    assert min(one.rate for one in asked) == rate_at(-11)


def test_decay_and_warm_up_are_tuned_after_the_rate_and_emsas_are_not():
    losses = lambda one: abs(one.rate - 0.003) + abs(one.decay - 0.1) + abs(one.warmup - 0.2)  # noqa: E731
    found, asked = tuned(losses)
    assert found == Choice(0.003, 0.1, 0.2)
    assert len(asked) == 9
    assert tuned(losses, ("rate", "warm-up"))[0] == Choice(0.003, 0.0, 0.2)
    assert tuned(losses, method="emsa")[0] == Choice(0.003)


def test_the_rate_rises_over_the_warm_up_and_falls_to_zero():
    assert [warmed(0.0, 4, k / 4) for k in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert [warmed(0.5, 4, k / 4) for k in range(4)] == [0.5, 0.75, 0.5, 0.25]
