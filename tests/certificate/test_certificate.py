"""The comparison with Adam: fair starts, honest verdicts, whole files, command line."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pontryagin.cli import main
from pontryagin.hamiltonian import Penalties
from pontryagin.papers.certificate import tasks
from pontryagin.papers.certificate.experiment import METRICS, RULES, STAGES, TaskResult, adam, score, verdicts
from pontryagin.papers.certificate.tasks import TASKS, cnn_descent, digits_cnn, sine, sine_descent
from pontryagin.papers.sine.task import SineTask
from pontryagin.problem import ControlProblem
from pontryagin.run.errors import ExperimentError
from pontryagin.run.progress import Advance, Progress
from pontryagin.run.study import choose
from pontryagin.run.tuning import best, tuned
from pontryagin.trajectory import Propagation
from pontryagin.update import ExtendedMSA, IterationRecord, StageRecord
from redrawn import assert_drawn_again


def short(name: str, samples: int) -> Callable[[int], ControlProblem]:
    """A task's problem on its first samples."""
    whole = TASKS[name].problem

    def make(seed: int) -> ControlProblem:
        problem = whole(seed)
        return replace(problem, initial_state=problem.initial_state[:samples],
                       target=problem.target[:samples])

    return make


def test_the_sine_starts_where_the_paper_does() -> None:
    for figure in "ab":
        task, problem = SineTask(figure, 3), sine(figure, 3)
        found = Propagation(problem, problem.initial_controls()).objective
        assert found == pytest.approx(task.loss(task.start()).item(), rel=1e-12)


def test_the_network_depends_on_its_seed_alone() -> None:
    pytest.importorskip("sklearn")
    torch.manual_seed(5)
    first = torch.cat(digits_cnn(1).initial_controls())
    torch.rand(7)
    assert torch.equal(torch.cat(digits_cnn(1).initial_controls()), first)
    assert not torch.equal(torch.cat(digits_cnn(2).initial_controls()), first)
    problem = digits_cnn(1)
    start, objective = cnn_descent(1)
    assert objective(start).item() == pytest.approx(Propagation(problem,
                                                                problem.initial_controls()).objective,
                                                    rel=1e-6)
    assert [one.affine is not None for one in problem.stages if one.size] == [True] * 3


def test_adam_is_torch_s_on_the_same_objective() -> None:
    task = SineTask("a", 0)
    theta = task.start().requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=0.05)
    problem = sine("a", 0)
    assert Propagation(problem,
                       problem.initial_controls()).objective == pytest.approx(task.loss(theta).item())
    expected = []
    for _ in range(4):
        loss = task.loss(theta)
        expected.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert adam(sine_descent("a", 0), 0.05, 3) == pytest.approx(expected, rel=1e-9)


def test_tuning_takes_the_rate_that_reaches_lowest_and_no_rate_that_diverges() -> None:
    class Counted(Progress):
        @contextmanager
        def task(self, title: str, length: int) -> Iterator[Advance]:
            yield lambda number, loss: done.append((title, number, length))

    done: list[tuple[str, int, int]] = []
    scores = tuned((1e-4, 1e-1, 1e8), lambda rate: score(TASKS["sine-a"], rate, 15), Counted(), "Adam")
    assert best(scores) == TaskResult(scores).rate == 1e-1
    assert scores[1e8] > 1.0
    assert done == [("Adam", number, 3) for number in (1, 2, 3)]
    assert best({1.0: float("inf"), 2.0: 0.5}) == 2.0


def record(iteration: int, before: float, after: float, rejected: int = 0) -> IterationRecord:
    one = StageRecord(0, "stage", 1.0, 0.5, 0.5, Penalties(2.0, 1.0))
    return IterationRecord(iteration, before, after, after, after, (one,), True, rejected, 1, 0.1)


def test_verdicts_count_rises_and_say_when_adam_was_reached() -> None:
    good = [record(1, 4.0, 2.0), record(2, 2.0, 0.5, rejected=1), record(3, 0.5, 0.4)]
    bad = [record(1, 4.0, 3.0), record(2, 3.0, 3.5)]
    found = verdicts(TaskResult({0.1: 1.0}, [[4.0, 1.0, 1.5], [4.0, 2.0, 1.0]],
                                {"estimate": [good, bad]}))["estimate"]
    assert (found["rises"], found["iterations"]) == (1, 5)
    assert found["rejected_share"]["max"] == 0.25
    assert found["adam_objective"]["median"] == 1.0
    assert found["adam_iterations"] == {"median": 1.5, "min": 1.0, "max": 2.0}
    assert found["iterations_to_adam"] == {"median": None, "min": 2, "max": 2, "reached": 1, "seeds": 2}


@pytest.mark.parametrize("rule", RULES)
def test_the_objective_never_rises_on_a_small_network(rule: str) -> None:
    pytest.importorskip("sklearn")
    records = list(ExtendedMSA(short("cnn", 60)(0), penalty=RULES[rule]()).iterate(8))
    assert all(one.objective_after <= one.objective_before for one in records)
    assert records[-1].objective_after < 0.1 * records[0].objective_before


def test_command_writes_tables_figures_and_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.TASKS, "sine-a", replace(TASKS["sine-a"], problem=short("sine-a", 20)))
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "certificate", "--quick", "--tasks", "sine-a", "--out", str(tmp_path / "run")])
    assert stop.value.code == 0
    folder = tmp_path / "run"
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == METRICS
    assert {row["method"] for row in rows} == {"adam", *RULES}
    for rule in RULES:
        own = [float(row["objective"]) for row in rows if row["method"] == rule]
        assert len(own) == 11
        assert own == sorted(own, reverse=True)
    with (folder / "stages.csv").open(newline="") as file:
        assert tuple(next(csv.reader(file))) == STAGES
    summary = json.loads((folder / "summary.json").read_text())
    assert not summary["interrupted"]
    assert summary["results"]["sine-a"]["estimate"]["rises"] == 0
    assert sorted(path.name for path in (folder / "figures").iterdir()) == [
        "certificate-narrow.png", "certificate.png", "iterations-sine-a-narrow.png", "iterations-sine-a.png"]
    assert "data:image/png" in (folder / "report.html").read_text()
    assert_drawn_again(folder)


def test_refused_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExperimentError, match="unknown task 'cos'"):
        choose("task", ("cos",), TASKS)
    for options, message in ((["--seeds", "0"], "--seeds: expected"), (["--tasks", "cos"], "unknown task")):
        with pytest.raises(SystemExit) as stop:
            main(["reproduce", "certificate", "--out", str(tmp_path / "x"), *options])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
