"""The sine as one object that is varied, and the authors' released code beside it."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from builders import assert_close
from pontryagin.cli import main
from pontryagin.hamiltonian import paper_penalties
from pontryagin.maximizer import LBFGS
from pontryagin.papers.sine.methods import METHODS
from pontryagin.papers.sine.setup import SETUPS, SineSetup, references
from pontryagin.papers.sine.task import SineTask
from pontryagin.run.errors import ExperimentError
from pontryagin.trajectory import Propagation, group_stages
from pontryagin.update import Perturbation

SMALL = replace(SETUPS["released"], layers=4, width=3, samples=30)


@pytest.mark.parametrize("figure", ["a", "b"])
@pytest.mark.parametrize("split", [False, True])
def test_a_varied_setup_is_one_objective(figure: str, split: bool) -> None:
    """The regularizer is that of the released code: not multiplied by delta."""
    task = SineTask(figure, 2, replace(SMALL, end=3.0, regularizer=0.2))
    theta = task.start()
    assert theta.shape == (4, 12)
    inputs, target = task.train
    x = inputs
    for row in theta:
        x = x + 0.75 * torch.tanh(x @ row[:9].view(3, 3).mT + row[9:])
    expected = (x.sum(1) - target).square().mean() + 0.1 * theta.square().sum()
    assert_close(task.objective(theta), expected, 1e-13)
    controls = tuple(part for row in theta for part in ((row, theta.new_empty(0)) if split else (row,)))
    found = Propagation(task.split_problem() if split else task.problem(), controls)
    assert found.objective == pytest.approx(float(expected), rel=1e-13)


@pytest.mark.parametrize("method", ["emsa-paper", "emsa", "adam", "lbfgs", "lm"])
def test_every_method_lowers_the_objective_with_its_regularizer(method: str) -> None:
    task, history = SineTask("b", 0, replace(SMALL, regularizer=0.05)), []
    METHODS[method].run(task, 6, 0.03, lambda theta, spent, record: history.append(
        task.objective(theta).item()) or True)
    assert history[-1] < 0.9 * task.objective(task.start()).item()


def test_noise_is_uniform_where_asked() -> None:
    start = SineTask("b", 1, SETUPS["released"]).start()
    assert 4.5e-3 < float(start.abs().max()) <= 5e-3
    assert abs(float(start.std()) - 5e-3 / 3 ** 0.5) < 3e-4
    noise, problem = Perturbation(0.1, distribution="uniform"), SineTask("b", 1, SMALL).problem()
    moved = torch.cat(noise(problem, problem.initial_controls())) - torch.cat(problem.initial_controls())
    assert 0.09 < float(moved.abs().max()) <= 0.1


def minus_augmented(control: Tensor, x: Tensor, y: Tensor, p: Tensor, q: Tensor, setup: SineSetup) -> Tensor:
    """As the released code has it: sums over the samples, costates of the mean loss, rho = 1."""
    width = setup.width
    x = x.detach().requires_grad_()
    weight, bias = control[:width ** 2].view(width, width), control[width ** 2:]
    image = x + setup.delta * torch.tanh(x @ weight.mT + bias)
    hamiltonian = (p * image).sum() - 0.5 * setup.regularizer * control.square().sum()
    pulled, = torch.autograd.grad(hamiltonian, x, create_graph=True)
    return 0.5 * ((y - image).square().sum() + (q - pulled).square().sum()) - hamiltonian


def test_a_converged_argmax_is_scipys_and_ten_iterations_are_not() -> None:
    """Two codes of L-BFGS stop at different controls after the paper's 10 iterations."""
    setup = replace(SMALL, layers=2, regularizer=0.5)
    task = SineTask("a", 0, setup)
    problem, theta = task.problem(), task.start()
    trajectory = Propagation(problem, tuple(theta.unbind())).trajectory()
    group, = group_stages(problem, tuple(theta.unbind()), trajectory)
    penalties = paper_penalties(setup.rho, setup.samples)
    converged, short = (LBFGS(count, history_size=20).model(group).maximize(penalties) for count in (100, 10))
    parted = 0.0
    for n in range(setup.layers):
        data = (trajectory.states[n], trajectory.states[n + 1], trajectory.costates[n + 1] / setup.samples,
                trajectory.costates[n] / setup.samples)

        def both(point: object, data: tuple[Tensor, ...] = data) -> tuple[float, object]:
            control = torch.from_numpy(point).requires_grad_()
            value = minus_augmented(control, *data, setup)
            return value.item(), torch.autograd.grad(value, control)[0].numpy()

        whole = minimize(both, theta[n].numpy(), jac=True, method="L-BFGS-B",
                         options={"maxiter": 5000, "maxfun": 10000, "ftol": 1e-16, "gtol": 1e-11})
        ten = minimize(both, theta[n].numpy(), jac=True, method="L-BFGS-B", options={"maxiter": 10})
        expected = torch.from_numpy(whole.x)  # scipy stops where values no longer tell: Newton's step does
        bend = torch.autograd.functional.hessian(lambda one: minus_augmented(one, *data, setup), expected)  # noqa: B023
        expected = expected - torch.linalg.solve(bend, torch.from_numpy(both(whole.x)[1]))
        assert_close(converged[n], expected, 1e-6)
        parted = max(parted, float((short[n] - torch.from_numpy(ten.x)).abs().max()))
    assert parted > 1e-4


def test_references_belong_to_a_setup_and_to_none_that_is_varied() -> None:
    source, known = references(SETUPS["released"])
    assert "released code" in source
    assert known["b"]["emsa-paper"][500] == 0.0011
    assert references(replace(SETUPS["released-1000"], regularizer=0.0))[1]["a"]["emsa-paper"][500] == 0.0016
    assert references(replace(SineSetup(), layers=10)) == ("", {})


@pytest.mark.parametrize(("wrong", "message"), [
    ({"figures": ("c",)}, "--figures: expected a, b, found c"), ({"figures": ()}, "found none"),
    ({"end": 4.0, "step_size": 0.25}, "20 layers times --step-size 0.25"), ({"layers": 0}, "--layers"),
    ({"rates": {"emsa": 1.0}}, "rate > 0 of sgd, adagrad or adam"),
    ({"rates": {"sgd": 0.0}}, "found 0 of sgd"),
])
def test_wrong_setups(wrong: dict, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        SineSetup(**wrong)
    assert SineSetup(end=4.0, step_size=0.2).duration == pytest.approx(4.0)
    assert SineSetup(step_size=0.5).duration == 10.0


def test_command_of_the_released_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pontryagin.cli.studies.draw_figures", lambda folder: [])
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "sine-released", "--iterations", "2", "--seeds", "1", "--methods", "emsa,adam",
              "--layers", "6", "--rates.adam", "0.01", "--out", str(out)])
    assert stop.value.code == 0
    summary = json.loads((out / "summary.json").read_text())
    expected = replace(SETUPS["released"], layers=6, rates={"adam": 0.01})
    assert summary["settings"]["setup"] == vars(expected) | {"figures": ["b"]}
    assert summary["results"]["b"]["adam"]["learning_rate"] == 0.01
    assert summary["paper"] == {}
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["objective"]) > float(row["train_loss"]) for row in rows)
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "sine", "--methods", "emsa-multilevel", "--layers", "5", "--seeds", "1",
              "--figures", "b", "--iterations", "2", "--out", str(tmp_path / "odd")])
    assert stop.value.code == 2
