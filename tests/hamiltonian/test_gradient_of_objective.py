"""grad_theta J = -(mean over samples of grad_theta H_n), stage by stage."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from builders import IMAGE_KINDS, VECTOR_KINDS, assert_close, groups_of, mixed_problem, objective
from pontryagin.hamiltonian import Penalties, augmented, hamiltonian
from pontryagin.maximizer import ClosedForm, GradientAscent
from pontryagin.problem import ControlProblem
from pontryagin.trajectory import propagate

kinds = {"image": st.lists(st.sampled_from(IMAGE_KINDS), max_size=2),
         "vector": st.lists(st.sampled_from(VECTOR_KINDS), max_size=3), "seed": st.integers(0, 10**4)}


def objective_gradients(problem: ControlProblem) -> list[Tensor]:
    controls = [control.requires_grad_() for control in problem.initial_controls()]
    return list(torch.autograd.grad(objective(problem, controls), controls, allow_unused=True,
                                    materialize_grads=True))


@given(**kinds)
def test_mean_hamiltonian_gradient_is_minus_the_objective_gradient(image: list[str], vector: list[str],
                                                                   seed: int) -> None:
    problem = mixed_problem(image, vector, seed)
    trajectory = propagate(problem, problem.initial_controls())
    for n, (one, expected) in enumerate(zip(problem.stages, objective_gradients(problem), strict=True)):
        control = one.start.clone().requires_grad_()
        values = hamiltonian(one, control, trajectory.states[n], trajectory.costates[n + 1])
        assert values.shape == (problem.samples,)
        if one.size:
            assert_close(torch.autograd.grad(values.mean(), control)[0], -expected, 1e-12)


@given(**kinds)
def test_models_carry_the_same_gradient(image: list[str], vector: list[str], seed: int) -> None:
    problem = mixed_problem(image, vector, seed)
    expected = objective_gradients(problem)
    for group in groups_of(problem):
        models = [GradientAscent(0.1).model(group)]
        models += [ClosedForm().model(group)] if group.stage.affine is not None else []
        for model in models:
            assert_close(model.gradient, -torch.stack([expected[n] for n in group.indices]), 1e-12)


@given(**kinds)
def test_penalties_have_no_gradient_at_the_current_controls(image: list[str], vector: list[str],
                                                            seed: int) -> None:
    problem = mixed_problem(image, vector, seed)
    expected = objective_gradients(problem)
    for group in groups_of(problem):
        for single in group.singles():
            data = tuple(tensor[0] for tensor in single.data)
            gradient = torch.func.grad(lambda u, one=single,
                                       data=data: augmented(one.stage, u, data, Penalties(30., 20.)))(
                single.control[0])
            assert_close(gradient, -expected[single.indices[0]], 1e-12)
