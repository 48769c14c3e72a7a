"""What every maximizer promises, on every kind of stage that it can take."""

from dataclasses import dataclass, replace

import pytest
import torch
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
    MajorizedAscent,
    Maximizer,
    RowGaussNewton,
    StageByStage,
)
from pontryagin.problem import ProblemError, Quadratic
from pontryagin.trajectory import StageGroup

COST = Quadratic(0.3)
PROBLEMS = {
    "linear": linear_problem, "linear cost": lambda: linear_problem(cost=COST),
    "no bias": lambda: linear_problem(bias=False), "time": lambda: linear_problem((4, 3)),
    "tanh": tanh_problem, "tanh cost": lambda: tanh_problem(cost=COST),
    "split": split_problem, "split cost": lambda: split_problem(cost=COST), "conv": conv_problem,
}
SIMPLE: list[tuple[Maximizer, tuple[str, ...]]] = [
    (GradientAscent(1e-3), ("linear cost", "tanh", "time", "conv")),
    (LBFGS(10), ("linear", "split cost", "tanh cost", "conv")),
    (GaussNewton(1e-3), ("linear cost", "split", "time", "tanh", "conv")),
    (RowGaussNewton(1e-3), ("linear", "tanh cost")),
    (ClosedForm(0.0), ("linear", "linear cost", "no bias", "time", "split cost")),
    (ClosedForm(1e-2), ("linear cost", "split", "conv")),
    (Elementwise(), ("linear cost", "split")),
    (CoordinateAscent(8), ("linear", "split cost")),
    (MajorizedAscent(8), ("linear cost", "time")),
    (ByForm(), ("linear", "tanh")),
]
BATCHED = [(maximizer, name) for maximizer, names in SIMPLE for name in names]
SEPARATE = [(StageByStage(maximizer), names[-1]) for maximizer, names in SIMPLE]


def cases(which: list[tuple[Maximizer, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("maximizer", "name"), which,
                                   ids=[f"{case}-{name}" for case, name in which])


each_case, each_simple = cases(BATCHED + SEPARATE), cases(BATCHED)
each_iterative = cases([(maximizer, name)
                        for maximizer, name in BATCHED if not isinstance(maximizer, GradientAscent)])


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


@each_iterative
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
class UnitBox:
    """Theta = [-1, 1]^p."""

    unconstrained = False

    def project(self, control: Tensor) -> Tensor:
        return control.clamp(-1, 1)

    def contains(self, control: Tensor) -> Tensor:
        return (control.abs() <= 1).all(-1)


def boxed(group: StageGroup) -> StageGroup:
    inside = group.control.clamp(-1, 1)
    stage = replace(group.stage, admissible=UnitBox(), start=group.stage.start.clamp(-1, 1))
    return replace(group, stage=stage, control=inside, start=inside)


@each_case
def test_an_admissible_set_is_kept_or_refused_by_name(maximizer: Maximizer, name: str) -> None:
    for group in groups_of(PROBLEMS[name]()):
        inner = maximizer.maximizer if isinstance(maximizer, StageByStage) else maximizer
        if isinstance(inner, GradientAscent):
            steep = replace(inner, learning_rate=100.0)
            found = steep.model(boxed(group)).maximize(BOTH)
            assert (found.abs() <= 1).all()
            assert (found.abs() == 1).any()
            continue
        with pytest.raises(ProblemError, match=r"(maximizes over R\^p|takes sets of matrices).* has the "
                                               r"admissible set UnitBox"):
            maximizer.model(boxed(group))
