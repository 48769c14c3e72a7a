"""Asynchronous extended MSA: old states within their bound, J that never rises, and without staleness the
usual iteration."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from builders import TanhAffine, linear_problem, normal, split_problem, started, tanh_problem
from pontryagin.maximizer import LBFGS, ByForm, ClosedForm, HamiltonianModel
from pontryagin.problem import (
    ControlProblem,
    NonFiniteError,
    ProblemError,
    Quadratic,
    SquaredError,
    euler,
    stage,
)
from pontryagin.trajectory import Propagation, StageGroup
from pontryagin.update import AcceptReject, AsynchronousMSA, ExtendedMSA, Plain

SLOW = 2
BY_FORM = ByForm(ClosedForm(0.05), LBFGS(4))


def uneven() -> ControlProblem:
    """Affine and tanh stages: five units of work when each stage is one."""
    stages = [started(stage(nn.Linear(2, 4, dtype=torch.float64)), seed=90),
              *(started(one, seed=n, scale=0.3) for n, one in enumerate(euler(TanhAffine(4), 0.25, 3))),
              started(stage(nn.Linear(4, 1, dtype=torch.float64)), seed=91)]
    x = normal(40, 2, seed=50)
    return ControlProblem(stages, SquaredError(), x, x.sin().sum(1, keepdim=True))


class OneIsSlow(Executor):
    """All argmax are ready at once but that of stage SLOW, which is only found when it is waited for."""

    def __init__(self) -> None:
        self.late: dict[Future[Any], Callable[[], Any]] = {}
        self.waits = 0

    def submit(self, call: Any, *arguments: Any, **options: Any) -> Future[Any]:
        result: Future[Any] = Future()
        if SLOW in arguments[0].group.indices:
            self.late[result] = lambda: call(*arguments, **options)
        else:
            result.set_result(call(*arguments, **options))
        return result

    def wait(self, futures: Iterable[Future[Any]], **options: Any) -> None:
        for future in futures:
            if future in self.late:
                self.waits += 1
                future.set_result(self.late.pop(future)())


def solved(staleness: int, iterations: int, monkeypatch: pytest.MonkeyPatch) -> tuple[OneIsSlow, list[Any]]:
    executor = OneIsSlow()
    monkeypatch.setattr("pontryagin.update.asynchronous.wait", executor.wait)
    with AsynchronousMSA(uneven(), staleness=staleness, maximizer=BY_FORM, parts=5,
                         executor=executor) as solver:
        return executor, solver.solve(iterations)


@pytest.mark.parametrize("make",
                         [linear_problem, lambda: split_problem(4, 3, 20), lambda: tanh_problem(3, 2)])
def test_without_staleness_it_is_the_usual_iteration(make: Any) -> None:
    usual = ExtendedMSA(make(), maximizer=BY_FORM, penalty=AcceptReject(rho=0.5), acceleration=Plain())
    records = list(usual.iterate(6))
    with AsynchronousMSA(make(), staleness=0, maximizer=BY_FORM, penalty=AcceptReject(rho=0.5)) as solver:
        found = solver.solve(sum(1 + record.rejected for record in records))
    taken = [record for record in found if record.accepted]
    assert [record.objective_after for record in taken] == [record.objective_after for record in records]
    assert all(torch.equal(one, other) for one, other in zip(solver.controls, usual.controls, strict=True))
    assert {age for record in found for age in record.staleness} == {0}


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_states_are_not_older_than_allowed_and_the_objective_never_rises(
        staleness: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _, records = solved(staleness, 12, monkeypatch)
    ages = [age for record in records for age in record.staleness]
    assert max(ages) == staleness, "the slow stage is waited for only where its states would become too old"
    assert all(after.objective_after <= before.objective_after for before, after in pairwise(records))
    assert records[-1].objective_after < 0.8 * records[0].objective_before


def test_fast_stages_do_not_wait_for_slow_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, records = solved(3, 12, monkeypatch)
    taken = Counter(stage.stage for record in records for stage in record.stages)
    assert taken.pop(SLOW) == 3
    assert set(taken.values()) == {12}
    assert executor.waits == 3


def test_old_states_cost_iterations_and_not_the_result() -> None:
    problem = linear_problem(cost=Quadratic(0.05))
    usual = ExtendedMSA(problem, maximizer=BY_FORM, acceleration=Plain()).solve(200)
    with AsynchronousMSA(problem, staleness=2, maximizer=BY_FORM, workers=2) as solver:
        records = solver.solve(600)
    first, last = records[0].objective_before, usual[-1].objective_after
    assert records[-1].objective_after <= last + 1e-3 * (first - last)


@dataclass(frozen=True)
class OnceNaN:
    """A maximizer whose first argmax of one stage is NaN."""

    stage: int
    failed: list[int] = field(default_factory=list)

    def model(self, group: StageGroup) -> HamiltonianModel:
        model = LBFGS(4).model(group)
        if self.stage in group.indices and not self.failed:
            self.failed.append(self.stage)
            model.maximize = lambda penalties: torch.full_like(group.control, torch.nan)  # type: ignore[method-assign]
        return model


@pytest.mark.parametrize("staleness", [0, 2])
def test_an_argmax_that_is_not_finite_changes_nothing_and_the_next_step_begins_anew(staleness: int) -> None:
    with AsynchronousMSA(uneven(), staleness=staleness, maximizer=OnceNaN(3), parts=5) as solver:
        seen: list[object] = []

        def run() -> None:
            for _ in range(20):
                seen.append(solver.controls)
                solver.step()

        with pytest.raises(NonFiniteError, match="argmax of stages 3 is not finite"):
            run()
        assert solver.controls is seen[-1]
        records = solver.solve(12)
    assert {stage.stage for record in records for stage in record.stages} == {0, 1, 2, 3, 4}
    assert records[-1].objective_after < records[0].objective_before


def test_interrupted_while_it_waits_it_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = OneIsSlow()

    def interrupt(*futures: object, **options: object) -> None:
        monkeypatch.setattr("pontryagin.update.asynchronous.wait", executor.wait)
        raise KeyboardInterrupt

    monkeypatch.setattr("pontryagin.update.asynchronous.wait", interrupt)
    solver = AsynchronousMSA(uneven(), staleness=0, maximizer=BY_FORM, parts=5, executor=executor)
    with pytest.raises(KeyboardInterrupt):
        solver.step()
    records = solver.solve(3)
    assert all(len(record.stages) == 5 for record in records)


@pytest.mark.parametrize("workers", [1, 2])
def test_threads_do_not_touch_the_users_modules(workers: int) -> None:
    """Equal stages share a module, which every call as a function changes for a moment: J must be that of the
    controls."""
    module = TanhAffine(16)
    stages = euler(module, 0.2, 6)
    problem = ControlProblem([started(one, seed=n, scale=0.3) for n, one in enumerate(stages)],
                             SquaredError(), normal(400, 16, seed=1), normal(400, 16, seed=2))
    with AsynchronousMSA(problem, staleness=3, maximizer=LBFGS(4), workers=workers, parts=6) as solver:
        for _ in range(12):
            record = solver.step()
            assert Propagation(problem, solver.controls).objective == record.objective_after
    assert [type(parameter) for parameter in module.parameters()] == [nn.Parameter] * 2


def test_controls_may_be_replaced_and_evaluations_are_those_of_the_usual_iteration() -> None:
    problem = uneven()
    usual = ExtendedMSA(problem, maximizer=BY_FORM, acceleration=Plain())
    with AsynchronousMSA(problem, staleness=0, maximizer=BY_FORM) as solver:
        counts = [solver.step().evaluations for _ in range(2)]
        assert counts == [usual.step().evaluations for _ in range(2)]
        solver.controls = tuple(control * 0 for control in solver.controls)
        assert solver.step().objective_before == Propagation(problem,
                                                             tuple(c * 0 for c in solver.controls)).objective


def test_a_rule_that_starts_anew_at_every_trial_is_refused() -> None:
    with pytest.raises(ProblemError, match="AcceptReject without restart"):
        AsynchronousMSA(uneven(), penalty=AcceptReject(restart=True))


@pytest.mark.parametrize("options", [{"staleness": -1}, {"workers": 0}, {"parts": 0}])
def test_wrong_settings_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ProblemError, match="expected staleness >= 0, workers >= 1 and parts >= 1"):
        AsynchronousMSA(uneven(), **options)  # type: ignore[arg-type]


def test_threads_are_gone_with_the_solver() -> None:
    """One that ends while the interpreter does would abort it."""
    def argmax_threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("argmax")]

    solver = AsynchronousMSA(split_problem(5, 4, 23), staleness=2, workers=2)
    solver.step()
    numbers = [Path(f"/proc/self/task/{thread.native_id}") for thread in argmax_threads()]
    assert numbers
    del solver
    assert not argmax_threads()
    assert not any(number.exists() for number in numbers)
