import csv
import json
from itertools import pairwise
from math import pi

import pytest
import torch

from pontryagin.papers.sine.experiment import TABLES, SineSettings, run_sine, score
from pontryagin.papers.sine.methods import METHODS
from pontryagin.papers.sine.task import SineTask, total
from pontryagin.run.errors import ExperimentError
from pontryagin.run.progress import Progress
from pontryagin.run.tuning import best
from pontryagin.trajectory import propagate


def losses(figure: str, seed: int, method: str, iterations: int, rate: float = 0.0,
           until: float = 0.0) -> list[float]:
    """Train loss after each iteration."""
    task, history = SineTask(figure, seed), []

    def observe(theta, evaluations, record):
        assert evaluations >= 1
        history.append(task.loss(theta).item())
        return history[-1] > until

    METHODS[method].run(task, iterations, rate, observe)
    return history


def first_below(history: list[float], target: float) -> int:
    return next(k for k, loss in enumerate(history, 1) if loss <= target)


@pytest.mark.parametrize("figure", ["a", "b"])
def test_the_problems_and_the_loop_are_one_network(figure):
    task = SineTask(figure, 3)
    theta = task.start()
    whole = propagate(task.problem(), tuple(theta.unbind()))
    split = propagate(task.split_problem(),
                      tuple(part for row in theta for part in (row, theta.new_empty(0))))
    torch.testing.assert_close(whole.states[-1], task.predict(theta, task.train[0]), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(split.states[-1], whole.states[-1], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(whole.terminal.mean(), task.loss(theta), rtol=1e-13, atol=0)
    assert len(task.problem().groups) == 1


def test_tasks_are_seeded_and_as_the_paper_says():
    task, again, other = SineTask("a", 1), SineTask("a", 1), SineTask("a", 2)
    assert torch.equal(task.start(), again.start())
    assert torch.equal(task.train[0], again.train[0])
    assert not torch.equal(task.train[0], task.test[0])
    assert not torch.equal(task.train[0], other.train[0])
    inputs, target = task.train
    assert inputs.shape == (1000, 5)
    assert inputs.abs().max() <= pi
    torch.testing.assert_close(target, inputs[:, 2].sin())
    assert (task.start()[:, 25:] == 0.1).all()
    assert 0.05 < SineTask("a", 1).start()[:, :25].std() < 0.12
    assert 0.003 < SineTask("b", 1).start().std() < 0.007


@pytest.mark.parametrize("figure", ["a", "b"])
def test_the_default_method_learns_the_sine_and_never_rises(figure):
    history = losses(figure, 0, "emsa", 250 if figure == "a" else 400, until=1e-4)
    assert all(later <= earlier + 1e-15 for earlier, later in pairwise(history))
    assert first_below(history, 0.1) <= 40
    assert first_below(history, 1e-4) <= (250 if figure == "a" else 400)


def test_secants_reach_a_millionth_within_a_hundred_iterations():
    assert first_below(losses("b", 0, "emsa-secant", 100, until=1e-6), 1e-6) <= 100


def test_half_the_steps_first_reaches_what_all_reach():
    assert first_below(losses("b", 0, "emsa-multilevel", 90, until=3e-3), 3e-3) <= 90


def test_the_papers_method_lowers_the_loss_with_both_penalties():
    history = losses("a", 1, "emsa-paper", 8)
    assert history[-1] < history[0] / 2


@pytest.mark.parametrize(("method", "rate", "iterations", "target"), [
    ("sgd", 0.03, 60, 0.6), ("adagrad", 0.1, 60, 1.0), ("adam", 0.1, 60, 0.6), ("lbfgs", 0.0, 30, 0.01),
    ("lm", 0.0, 12, 1e-3)])
def test_baselines_learn(method, rate, iterations, target):
    history = losses("a", 0, method, iterations, rate)
    assert history[-1] <= target
    assert len(history) <= iterations


def test_basic_msa_does_not_converge_though_every_iteration_predicts_a_decrease():
    task, gaps, history = SineTask("a", 0), [], []

    def observe(theta, evaluations, record):
        gaps.append(record.optimality_gap)
        history.append(record.objective_after)
        return True

    METHODS["msa"].run(task, 4, 0.0, observe)
    assert min(gaps) > 0
    assert max(history[1:]) > history[0]


def test_a_run_writes_documented_columns(tmp_path):
    settings = SineSettings(tmp_path / "run", seeds=2, iterations=3, methods=("emsa", "sgd"))
    out, interrupted = run_sine(settings, "pontryagin reproduce sine", Progress())
    assert not interrupted
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == TABLES["metrics"]
    assert len(rows) == 2 * 2 * 2 * 4  # figures, methods, seeds, iterations 0 to 3
    for row in rows:
        if row["method"] == "emsa" and row["iteration"] != "0":
            assert row["accepted"] in "01"
            assert float(row["rho"]) > 0
        assert float(row["train_loss"]) >= 0
    with (out / "stages.csv").open() as file:
        stages = list(csv.DictReader(file))
    assert tuple(stages[0]) == TABLES["stages"]
    assert {int(row["stage"]) for row in stages} == set(range(20))
    summary = json.loads((out / "summary.json").read_text())
    assert summary["results"]["b"]["emsa"]["iterations"] == 3
    assert summary["results"]["a"]["sgd"]["learning_rate"] in METHODS["sgd"].rates
    assert set(summary["tuning"]["a"]["sgd"]) == {str(rate) for rate in METHODS["sgd"].rates}
    assert summary["paper"]["a"]["adam"] == {
        "loss": 0.04, "iteration": 500, "losses": [{"iteration": 500, "loss": 0.04, "here": None}]}


def test_threads_are_set_back(tmp_path):
    threads = torch.get_num_threads()
    run_sine(SineSettings(tmp_path / "run", seeds=1, iterations=1, methods=("sgd",)), "", Progress())
    assert torch.get_num_threads() == threads


def test_the_tuned_rate_is_the_one_with_the_least_score():
    assert best({0.1: -1.0, 0.01: -2.5, 1.0: float("inf")}) == 0.01
    assert score(SineTask("a", 0), METHODS["sgd"], 4, 1e9) > 0


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"iterations": 0}, {"methods": ("emsa", "sdg")}])
def test_wrong_settings_are_refused(wrong, tmp_path):
    with pytest.raises(ExperimentError):
        SineSettings(tmp_path, **wrong)


def test_prediction_is_the_sum_of_the_state():
    assert total(torch.tensor([[1.0, 2.0, 4.0]])).tolist() == [7.0]
