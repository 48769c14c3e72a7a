"""Full-batch problems on which the certified rules are compared with Adam."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from pontryagin.experiments.data import load_images
from pontryagin.experiments.errors import ExperimentError
from pontryagin.experiments.sine.task import FIGURES, SineTask
from pontryagin.problem import ControlProblem, CrossEntropy, stage

IMAGES, CHANNELS = 500, 8


@dataclass(frozen=True)
class Task:
    """problem: stages with their initial controls, and all data, by seed. adam: iterations of Adam; emsa: of each rule."""

    name: str
    label: str
    problem: Callable[[int], ControlProblem]
    adam: int
    emsa: int


def sine(figure: str) -> Callable[[int], ControlProblem]:
    """Figure 1's problem, each step split at its affine map; data and initial controls depend on the seed."""

    def make(seed: int) -> ControlProblem:
        task = SineTask(figure, seed)
        problem, rows = task.split_problem(), iter(task.start())
        stages = [replace(one, start=next(rows).clone()) if one.size else one for one in problem.stages]
        return ControlProblem(stages, problem.terminal_cost, problem.initial_state, problem.target)

    return make


def digits_cnn(seed: int) -> ControlProblem:
    """500 of scikit-learn's digits, 8x8: conv 3x3 (8), tanh, pool, conv 3x3 (8), tanh, pool, linear; cross-entropy, float32.

    Each layer is a stage, so that convolutions and the linear layer are maximized in closed form. torch's initial weights.
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
    Task("sine-a", f"sine, {FIGURES['a']}", sine("a"), adam=500, emsa=100),
    Task("sine-b", f"sine, {FIGURES['b']}", sine("b"), adam=1000, emsa=150),
    Task("cnn", "CNN on digits", digits_cnn, adam=200, emsa=40),
)}


def choose(names: tuple[str, ...] | None) -> list[Task]:
    """The tasks with these names, all if None. Raises ExperimentError."""
    unknown = sorted(set(names or ()) - TASKS.keys())
    if unknown:
        raise ExperimentError(f"unknown task {', '.join(map(repr, unknown))}: expected one or more of {', '.join(TASKS)}")
    return [task for task in TASKS.values() if names is None or task.name in names]
