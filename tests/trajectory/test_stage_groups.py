"""Groups carry the trajectory of each of their stages."""

from dataclasses import replace

import torch

from builders import groups_of, linear_problem, mixed_problem, normal
from pontryagin.trajectory import group_stages, propagate


def test_equal_stages_are_one_group_with_their_own_trajectory() -> None:
    problem = linear_problem()
    controls = problem.initial_controls()
    trajectory = propagate(problem, controls)
    (group,) = group_stages(problem, controls, trajectory)
    assert group.indices == (0, 2, 4)
    for n, index in enumerate(group.indices):
        assert torch.equal(group.control[n], controls[index])
        assert torch.equal(group.state[n], trajectory.states[index])
        assert torch.equal(group.next_state[n], trajectory.states[index + 1])
        assert torch.equal(group.costate[n], trajectory.costates[index])
        assert torch.equal(group.next_costate[n], trajectory.costates[index + 1])


def test_every_stage_with_a_control_is_in_one_group() -> None:
    problem = mixed_problem(["conv", "tanh"], ["split", "bend", "norm"], seed=3)
    found = sorted(index for group in groups_of(problem) for index in group.indices)
    assert found == [n for n, one in enumerate(problem.stages) if one.size]


def test_singles_are_the_stages_of_the_group_alone() -> None:
    (group,) = groups_of(linear_problem())
    group = replace(group, start=group.control + 1)
    singles = list(group.singles())
    assert [single.indices for single in singles] == [(0,), (2,), (4,)]
    for n, single in enumerate(singles):
        for whole, part in zip((group.control, group.start, *group.data),
                               (single.control, single.start, *single.data), strict=True):
            assert torch.equal(whole[n:n + 1], part)


def test_an_argmax_may_start_elsewhere_than_at_the_controls() -> None:
    problem = linear_problem()
    controls = problem.initial_controls()
    starts = tuple(control + normal(control.numel(), seed=9) if control.numel() else control
                   for control in controls)
    (group,) = group_stages(problem, controls, propagate(problem, controls), starts)
    assert torch.equal(group.control[1], controls[2])
    assert torch.equal(group.start[1], starts[2])
