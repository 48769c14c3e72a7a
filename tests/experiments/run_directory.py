"""A run directory as the experiment on the sine writes it, with made-up numbers: no network is trained."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

METHODS = ("msa", "emsa-paper", "emsa", "emsa-secant", "sgd", "adagrad", "adam", "lbfgs", "lm")
CONTROL = ("msa", "emsa-paper", "emsa", "emsa-secant")
TARGETS = ("0.1", "0.01", "0.0001", "1e-06")
HEADERS = {
    "metrics.csv": "figure,method,seed,iteration,evaluations,seconds,train_loss,test_loss,objective,accepted,"
                   "rho,optimality_gap,rejected",
    "stages.csv": "figure,method,seed,iteration,stage,gain,state_error,costate_error",
    "states.csv": "figure,method,x,time,component,state",
    "fit.csv": "figure,method,x,target,prediction",
}
# power of the decay, evaluations and seconds an iteration, share of the iterations, loss that is approached
_SPEED = {
    "msa": (0.0, 12, 0.03, 0.1, 0.0), "emsa-paper": (1.1, 23, 0.06, 1.0, 5e-4),
    "emsa": (1.9, 1.2, 0.004, 1.0, 1e-6),
    "emsa-secant": (4.0, 1.1, 0.005, 0.3, 1e-9), "sgd": (0.6, 1, 0.001, 1.0, 0.02),
    "adagrad": (0.8, 1, 0.001, 1.0, 5e-3),
    "adam": (1.4, 1, 0.001, 1.0, 1e-4), "lbfgs": (3.0, 1.1, 0.001, 0.5, 1e-7),
    "lm": (7.0, 6, 0.02, 0.1, 1e-10),
}


def write_run(directory: Path, *, figures: Sequence[str] = ("a", "b"), methods: Sequence[str] = METHODS,
              seeds: int = 3, iterations: int = 60, interrupted: bool = False,
              diverged: Sequence[str] = ("msa",)) -> Path:
    """All files. diverged: methods whose last losses are inf or nan. interrupted: the last seed stops at a
    third."""
    generator = np.random.default_rng(20180101)
    rows: dict[str, list[list[object]]] = {name: [] for name in HEADERS}
    results: dict[str, dict[str, object]] = {}
    for figure in figures:
        results[figure] = {}
        for method in methods:
            runs = []
            for seed in range(seeds):
                length = max(4, int(iterations * _SPEED[method][3]) - seed)
                length = length // 3 if interrupted and seed == seeds - 1 else length
                runs.append(_losses(figure, method, length, method in diverged, generator))
                rows["metrics.csv"] += _metrics(figure, method, seed, runs[-1], generator)
                if method in CONTROL:
                    rows["stages.csv"] += _stages(figure, method, seed, runs[-1], generator)
            results[figure][method] = _result(method, runs)
            rows["states.csv"] += _states(figure, method)
            rows["fit.csv"] += _fit(figure, method, float(np.sqrt(runs[0][-1])))
    directory.mkdir(parents=True, exist_ok=True)
    for name, header in HEADERS.items():
        write_table(directory / name, header.split(","), rows[name])
    (directory / "summary.json").write_text(json.dumps(_summary(figures, methods, seeds, results,
                                                                interrupted), indent=1))
    return directory


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def _losses(figure: str, method: str, length: int, diverged: bool,
            generator: np.random.Generator) -> np.ndarray:
    k = np.arange(length + 1.0)
    power, *_, floor = _SPEED[method]
    start = 2.0 if figure == "a" else 6.0
    if method == "msa":
        loss = start * np.exp(0.25 * k) * np.exp(generator.normal(0, 0.2, k.size).cumsum() * 0.5)
    else:
        delay = 3.0 if figure == "a" else 12.0
        noise = generator.normal(0, 0.1) + generator.normal(0, 0.03, k.size) / (1 + k)
        loss = start * (1 + k / delay) ** -power * np.exp(noise) + floor
    if diverged:
        loss[-2:] = [np.inf, np.nan]
    return loss


def _metrics(figure: str, method: str, seed: int, loss: np.ndarray,
             generator: np.random.Generator) -> list[list[object]]:
    _, evaluations, seconds, *_ = _SPEED[method]
    rows = []
    rho = 100.0
    for k, value in enumerate(loss):
        record: list[object] = ["", "", "", ""]
        if method in CONTROL and k:
            tries = method.startswith("emsa") and method != "emsa-paper"
            rejected = int(generator.random() < 0.15) if tries else 0
            rho = 1000.0 if method == "emsa-paper" else 0.0 if method == "msa" else rho * (3.0 if rejected
                                                                                           else 0.84)
            with np.errstate(invalid="ignore"):
                fell = float(loss[k - 1] - value)
            gap = abs(fell) * 1.3 + 1e-9 if np.isfinite(fell) else 1.0
            record = [int(not (rejected and fell < 0)), rho, gap, rejected]
        rows.append([figure, method, seed, k, int(evaluations * k), seconds * k, value, 1.05 * value,
                     value, *record])
    return rows


def _stages(figure: str, method: str, seed: int, loss: np.ndarray,
            generator: np.random.Generator) -> list[list[object]]:
    rows: list[list[object]] = []
    for k in range(1, loss.size):
        for stage in range(20):
            size = (1 + abs(stage - 12)) ** -1.0 * float(np.exp(generator.normal(0, 0.3)))
            gain = size * (min(loss[k], 1e4) if np.isfinite(loss[k]) else 1e4) / 20
            error = gain * gain if method == "msa" else gain / 100
            gain = -gain if generator.random() < 0.02 else gain
            rows.append([figure, method, seed, k, stage, gain, error, error * (1.5 - stage / 20)])
    return rows


def _states(figure: str, method: str) -> list[list[object]]:
    return [[figure, method, x, n / 4, component,
             x + (np.sin(x) / 5 - x) * n / 20 + 0.3 * (component - 2) * np.sin(n / 8)]
            for x in (-3.0, -1.5, 0.0, 1.5, 3.0) for n in range(21) for component in range(5)]


def _fit(figure: str, method: str, error: float) -> list[list[object]]:
    error = min(error, 2.0) if np.isfinite(error) else 2.0
    return [[figure, method, x, np.sin(x), np.sin(x) + error * np.cos(3 * x)]
            for x in np.linspace(-np.pi, np.pi, 61)]


def _result(method: str, runs: list[np.ndarray]) -> dict[str, object]:
    _, evaluations, seconds, *_ = _SPEED[method]
    ends = [float(loss[-1]) for loss in runs]
    ends = [end if np.isfinite(end) else float("inf") for end in ends]
    first = {target: [np.flatnonzero(loss <= float(target)) for loss in runs] for target in TARGETS}
    reached = {target: [int(hits[0]) for hits in found if hits.size] for target, found in first.items()}
    return {
        "train_loss": {"median": median(ends), "min": min(ends), "max": max(ends)},
        "test_loss": {"median": 1.05 * median(ends), "min": 1.05 * min(ends), "max": 1.05 * max(ends)},
        **{name: {target: _reached([unit * value for value in values], len(runs))
                  for target, values in reached.items()}
           for name,
           unit in (("iterations_to", 1), ("evaluations_to", evaluations), ("seconds_to", seconds))},
        "seconds_per_iteration": seconds, "iterations": max(loss.size - 1 for loss in runs),
        "learning_rate": 0.1 if method in ("sgd", "adagrad", "adam") else None,
    }


def _reached(values: list[float], seeds: int) -> dict[str, object]:
    return {"median": median(values) if 2 * len(values) >= seeds and values else None,
            "min": min(values, default=None),
            "max": max(values, default=None), "reached": len(values), "seeds": seeds}


def _summary(figures: Sequence[str], methods: Sequence[str], seeds: int, results: object,
             interrupted: bool) -> dict[str, object]:
    rates = ("0.01", "0.1", "1.0")
    paper = {"a": {"emsa-paper": (0.03, 500), "adam": (0.04, 500), "adagrad": (0.055, 500),
                   "sgd": (0.07, 500)},
             "b": {"emsa-paper": (0.009, 2000), "adam": (0.007, 10000)}}
    tuned = [method for method in methods if method in ("sgd", "adagrad", "adam")]
    return {
        "experiment": "sine", "command": "pontryagin reproduce sine --out runs/<test> & more",
        "interrupted": interrupted,
        "settings": {"seeds": seeds, "iterations": {"a": 60, "b": 60}, "note": "<script>alert(1)</script>"},
        "versions": {"python": "3.11", "torch": "2.6.0"}, "machine": {"processor": "made up", "threads": 1},
        "results": results, "tuning_rule": "least mean of log10(train loss)",
        "diverged": {figure: {"msa": ["iteration 5: J becomes nan"]}
                     for figure in figures if "msa" in methods},
        "tuning": {figure: {method: dict(zip(rates, (0.02, 0.01, 0.04), strict=True)) for method in tuned}
                   for figure in figures},
        "paper": {figure: {method: {"loss": loss, "iteration": k}
                           for method, (loss, k) in paper[figure].items()}
                  for figure in figures},
    }
