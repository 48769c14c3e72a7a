"""Learning rates and rho, tuned once for a data set and kept in a file."""

import json
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

from pontryagin.run.callbacks import ProgressDisplay
from pontryagin.run.content import read_bytes
from pontryagin.run.errors import ExperimentError
from pontryagin.run.facts import differing, facts_of
from pontryagin.run.files import write_json
from pontryagin.run.methods import choose
from pontryagin.run.processes import present
from pontryagin.run.settings import RunSettings
from pontryagin.run.task import Task
from pontryagin.run.tuning import RULE, TUNING_SEED, score_training, search
from pontryagin.run.tuning import best as least

SHARE = 10
"""An iteration of the paper's E-MSA costs that of many others: its tuning runs are so much shorter."""

Scores = dict[str, dict[float, float]]


def shortened(method: str, iterations: int) -> int:
    """Iterations of a tuning run at one rate; those of emsa-paper are a tenth as long, but at least five."""
    return min(iterations, max(5, iterations // SHARE)) if method == "emsa-paper" else iterations


def words(iterations: int) -> str:
    """The rule and the budget, for people."""
    return (f"{RULE}; {iterations} iterations at each rate ({shortened('emsa-paper', iterations)} for the "
            "paper's E-MSA, whose rate is 1 / rho); E-MSA in closed form runs at its default")


def tuned(task: Task, settings: RunSettings, iterations: int, path: Path, display: ProgressDisplay) -> Scores:
    """The scores of every rate of the settings' methods that have a grid and no rate of the user's: out of
    the file, or tuned now and put into it.

    A file of another task, data, budget, batch size or dtype is refused (ExperimentError). Ctrl-C keeps what
    is complete.
    """
    placed = task.to(*settings.place())
    identity = _identity(placed, settings, iterations)
    known = _read(path, identity, placed)
    methods = [method for method in choose(settings.methods) if len(method.rates) > 1
               and method.name not in settings.rates]
    for method in methods:
        short = RunSettings(methods=(method.name,), batch_size=settings.batch_size, device=settings.device,
                            dtype=settings.dtype, tune=shortened(method.name, iterations))

        def found(rate: float, score: float, name: str = method.name) -> None:
            display.say(f"tuning {name}: rate {rate:g} scores {score:.3f}")
            if present().rank == 0:
                write_json(path,
                           identity | {"scores": {method: {f"{rate:g}": value for rate, value in own.items()}
                                                        for method, own in known.items()}})

        search(method.rates, lambda rate: score_training(placed, short, method, rate),  # noqa: B023
               known.setdefault(method.name, {}), found)
    return {method.name: {rate: known[method.name][rate] for rate in method.rates} for method in methods}


def recalled(task: Task, settings: RunSettings, iterations: int, path: Path) -> Scores:
    """The scores of the settings' methods in the file, for a run that is resumed; none when the file is not
    of this tuning."""
    placed = task.to(*settings.place())
    try:
        known = _read(path, _identity(placed, settings, iterations), placed)
    except ExperimentError:
        return {}
    return {method: scores for method, scores in known.items() if method in settings.methods}


def best(scores: Mapping[str, Mapping[float, float]]) -> dict[str, float]:
    """The rate with the least score of each method. Raises ExperimentError when none gave a finite one."""
    for method, found in scores.items():
        if min(found.values()) == inf:
            raise ExperimentError(f"{method} diverged at every rate of its grid "
                                  f"({', '.join(f'{rate:g}' for rate in found)})")
    return {method: least(found) for method, found in scores.items()}


def _identity(task: Task, settings: RunSettings, iterations: int) -> dict[str, Any]:
    return {"task": task.description, "batch_size": settings.batch_size, "dtype": settings.dtype,
            "iterations": iterations, "seed": TUNING_SEED, "rule": RULE, "facts": facts_of(task)}


def _read(path: Path, identity: Mapping[str, Any], task: Task) -> Scores:
    try:
        content = json.loads(read_bytes(path))
        there = {name: content[name] for name in identity}
        scores = {str(method): {float(rate): inf if value is None else float(value)
                                for rate, value in found.items()}
                  for method, found in content["scores"].items()}
        others = differing(there.pop("facts"), identity["facts"], lambda: facts_of(task))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ExperimentError(f"--tuning {path}: cannot be read as the scores of a tuning ({error}); remove "
                              "it or name another file") from error
    others += [name for name in there if there[name] != json.loads(json.dumps(identity[name]))]
    if others:
        raise ExperimentError(f"--tuning {path}: is of another tuning, it differs in {', '.join(others)}; "
                              "name another file or remove it")
    return scores
