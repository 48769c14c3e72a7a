"""What every maximizer promises, on every kind of stage that it can take."""

from dataclasses import dataclass, replace

import pytest
import torch
from projected_gradient import ProjectedGradient
from torch import Tensor

from builders import (
    BOTH,
    STATE_ONLY,
    Counted,
    assert_close,
    conv_problem,
    groups_of,
    linear_problem,
    normal,
    split_problem,
    tanh_problem,
)
from pontryagin.hamiltonian import Penalties, augmented, measure
from pontryagin.maximizer import (
    LBFGS,
    ByForm,
    ClosedForm,
    CoordinateAscent,
    Elementwise,
    GaussNewton,
    GradientAscent,
    GridSearch,
    MajorizedAscent,
    Maximizer,
    RowGaussNewton,
    SpectralGradient,
    StageByStage,
)
from pontryagin.problem import ControlProblem, ProblemError, Quadratic, RealSpace
from pontryagin.trajectory import StageGroup

COST = Quadratic(0.3)
PROBLEMS = {
    "linear": linear_problem, "linear cost": lambda: linear_problem(cost=COST),
    "no bias": lambda: linear_problem(bias=False), "time": lambda: linear_problem((4, 3)),
    "tanh": tanh_problem, "tanh cost": lambda: tanh_problem(cost=COST),
    "split": split_problem, "split cost": lambda: split_problem(cost=COST), "conv": conv_problem,
    "one row": lambda: linear_problem((1,), cost=COST),
}


@dataclass(frozen=True)
class Case:
    """A maximizer, the problems whose stages it takes, and whether penalties change its argmax.

    What a maximizer does with an admissible set is nobody's to say here: it keeps the set or refuses it.
    """

    maximizer: Maximizer
    problems: tuple[str, ...]
    penalized: bool = True


CASES = [
    Case(GradientAscent(1e-3), ("linear cost", "tanh", "time", "conv"), penalized=False),
    Case(LBFGS(10), ("linear", "split cost", "tanh cost", "conv")),
    Case(GaussNewton(1e-3), ("linear cost", "split", "time", "tanh", "conv")),
    Case(RowGaussNewton(1e-3), ("linear", "tanh cost")),
    Case(ClosedForm(0.0), ("linear", "linear cost", "no bias", "time", "split cost")),
    Case(ClosedForm(1e-2), ("linear cost", "split", "conv")),
    Case(Elementwise(), ("linear cost", "split")),
    Case(CoordinateAscent(8), ("linear", "split cost")),
    Case(MajorizedAscent(8), ("linear cost", "time")),
    Case(ByForm(), ("linear", "tanh")),
    Case(SpectralGradient(40), ("linear", "tanh cost", "conv")),
    Case(GridSearch(sweeps=1), ("one row",)),
    Case(ProjectedGradient(40), ("linear", "tanh cost", "conv")),
]
BATCHED = [(case.maximizer, name) for case in CASES for name in case.problems]
SEPARATE = [(StageByStage(case.maximizer), case.problems[-1]) for case in CASES]


def cases(which: list[tuple[Maximizer, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("maximizer", "name"), which,
                                   ids=[f"{case}-{name}" for case, name in which])


each_case, each_simple = cases(BATCHED + SEPARATE), cases(BATCHED)
each_penalized = cases([(case.maximizer, name) for case in CASES if case.penalized for name in case.problems])


def values(group: StageGroup, controls: Tensor, penalties: Penalties) -> Tensor:
    return torch.stack([augmented(group.stage, control, tuple(tensor[n] for tensor in group.data), penalties)
                        for n, control in enumerate(controls)])


@each_case
@pytest.mark.parametrize("penalties", [STATE_ONLY, BOTH], ids=["state", "both"])
def test_augmented_hamiltonian_rises(maximizer: Maximizer, name: str, penalties: Penalties) -> None:
    for group in groups_of(PROBLEMS[name]()):
        found = maximizer.model(group).maximize(penalties)
        assert found.shape == group.control.shape
        before, after = values(group, group.start, penalties), values(group, found, penalties)
        assert (after > before).all(), (after - before).tolist()


@each_case
def test_measures_are_the_generic_ones(maximizer: Maximizer, name: str) -> None:
    for group in groups_of(PROBLEMS[name]()):
        new = group.control + normal(*group.control.shape, seed=3, scale=0.3)
        for found, expected in zip(maximizer.model(group).measure(new), measure(group, new), strict=True):
            assert_close(found, expected, 1e-11)


@each_case
def test_the_trajectory_is_read_only(maximizer: Maximizer, name: str) -> None:
    for group in groups_of(PROBLEMS[name]()):
        tensors = [group.control, group.start, group.stage.start, *group.states, *group.next_states,
                   *group.costates, *group.next_costates]
        copies = [tensor.clone() for tensor in tensors]
        model = maximizer.model(group)
        model.measure(model.maximize(BOTH))
        assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, copies, strict=True))
        assert model.group.indices == group.indices


@each_simple
def test_batched_stages_move_as_they_do_alone(maximizer: Maximizer, name: str) -> None:
    for group in groups_of(PROBLEMS[name]()):
        together = maximizer.model(group).maximize(BOTH)
        assert len(group.indices) > 1
        assert_close(StageByStage(maximizer).model(group).maximize(BOTH), together, 1e-9)


@each_simple
def test_a_stage_does_not_depend_on_the_others_of_its_group(maximizer: Maximizer, name: str) -> None:
    problem = PROBLEMS[name]()
    (group,) = groups_of(problem)
    other = replace(group, control=torch.cat([group.control[:1], 3 + group.control[1:]]))
    other = replace(other, start=other.control)
    assert_close(maximizer.model(other).maximize(BOTH)[0], maximizer.model(group).maximize(BOTH)[0], 1e-9)


@each_penalized
def test_larger_penalties_shorten_the_step(maximizer: Maximizer, name: str) -> None:
    for group in groups_of(PROBLEMS[name]()):
        model = maximizer.model(group)
        short, long = (model.maximize(Penalties(rho, 0.1 * rho)) - group.control for rho in (1e4, 1.0))
        assert (short.norm(dim=1) < 0.05 * long.norm(dim=1)).all()


@each_simple
def test_maximizing_again_forgets_earlier_penalties(maximizer: Maximizer, name: str) -> None:
    for group in groups_of(PROBLEMS[name]()):
        used = maximizer.model(group)
        used.maximize(STATE_ONLY)
        used.maximize(Penalties(50.0, 3.0))
        assert torch.equal(used.maximize(BOTH), maximizer.model(group).maximize(BOTH))


@each_simple
def test_evaluations_are_counted(maximizer: Maximizer, name: str) -> None:
    for group in groups_of(PROBLEMS[name]()):
        counted = Counted(group.stage.dynamics)
        model = maximizer.model(replace(group, stage=replace(group.stage, dynamics=counted)))
        model.measure(model.maximize(BOTH))
        assert model.evaluations == counted.calls


@dataclass(frozen=True)
class SmallBox:
    """|theta_j| <= limit."""

    limit: float = 0.1
    unconstrained = False

    def project(self, control: Tensor) -> Tensor:
        return control.clamp(-self.limit, self.limit)

    def contains(self, control: Tensor) -> Tensor:
        return (control.abs() <= self.limit).all(-1)


def boxed(problem: ControlProblem, box: SmallBox) -> ControlProblem:
    stages = [replace(one, admissible=box, start=box.project(one.start)) for one in problem.stages]
    return replace(problem, stages=stages)


@each_case
def test_an_admissible_set_is_kept_or_refused_by_name(maximizer: Maximizer, name: str) -> None:
    """Controls begin on the edge of the set, so that the argmax over R^p lies outside."""
    box = SmallBox()
    for group in groups_of(boxed(PROBLEMS[name](), box)):
        free = replace(group, stage=replace(group.stage, admissible=RealSpace()))
        assert not box.contains(maximizer.model(free).maximize(BOTH)).all()
        try:
            model = maximizer.model(group)
        except ProblemError as error:
            refusal = str(error)
            assert " has the admissible set SmallBox" in refusal
            continue
        found = model.maximize(BOTH)
        assert box.contains(found).all()
        assert (values(group, found, BOTH) > values(group, group.control, BOTH)).all()
