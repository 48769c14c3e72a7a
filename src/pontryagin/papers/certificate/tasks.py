"""Full-batch problems on which the certified rules are compared with Adam."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from pontryagin.papers.sine.setup import FIGURES
from pontryagin.papers.sine.task import SineTask
from pontryagin.problem import ControlProblem, CrossEntropy, stage
from pontryagin.run.data import load_images

IMAGES, CHANNELS = 300, 8
Descent = tuple[list[Tensor], Callable[[list[Tensor]], Tensor]]
"""Initial controls and J as a function of them, for methods that differentiate through everything at once."""


@dataclass(frozen=True)
class Task:
    """problem: stages with their initial controls, and all data, by seed; descent: the same J and start, in
    the form that is cheapest to differentiate. adam, emsa: iterations of Adam and of each rule. needs: a
    package of an extra."""

    name: str
    label: str
    problem: Callable[[int], ControlProblem]
    descent: Callable[[int], Descent]
    adam: int
    emsa: int
    needs: str = ""


def sine(figure: str, seed: int) -> ControlProblem:
    """Figure 1's problem, each step split at its affine map; data and initial controls depend on the seed."""
    task = SineTask(figure, seed)
    problem, rows = task.split_problem(), iter(task.start())
    stages = [replace(one, start=next(rows).clone()) if one.size else one for one in problem.stages]
    return ControlProblem(stages, problem.terminal_cost, problem.initial_state, problem.target)


def sine_descent(figure: str, seed: int) -> Descent:
    """The same by the plain loop over layers, all controls in one tensor."""
    task = SineTask(figure, seed)
    return [task.start()], lambda controls: task.loss(controls[0])


def cnn_descent(seed: int) -> Descent:
    """The same, stage after stage."""
    problem = digits_cnn(seed)

    def objective(controls: list[Tensor]) -> Tensor:
        state = problem.initial_state
        for one, control in zip(problem.stages, controls, strict=True):
            state = one(state, control)
        return problem.terminal_cost(state, problem.target).mean()

    return list(problem.initial_controls()), objective


def digits_cnn(seed: int) -> ControlProblem:
    """300 of scikit-learn's digits, 8x8: conv 3x3 (8), tanh, pool, conv 3x3 (8), tanh, pool, linear;
    cross-entropy, float32.

    Each layer is a stage, so that convolutions and the linear layer are maximized in closed form. torch's
    initial weights.
    """
    images = load_images("digits")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, CHANNELS, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2),
                  nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2),
                  nn.Flatten(), nn.Linear(4 * CHANNELS, 10)]
    stages = [stage(layer) for layer in layers]
    return ControlProblem(stages, CrossEntropy(), images.train[:IMAGES], images.train_labels[:IMAGES])


TASKS = {task.name: task for task in (
    *(Task(f"sine-{figure}", f"sine, {FIGURES[figure]}", partial(sine, figure), partial(sine_descent, figure),
           *lengths)
      for figure, lengths in (("a", (300, 100)), ("b", (500, 450)))),
    Task("cnn", "CNN on digits", digits_cnn, cnn_descent, adam=150, emsa=30, needs="sklearn"),
)}
