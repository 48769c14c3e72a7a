"""What has been measured so far, of every run, and in words."""

import csv
from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Any

from pontryagin.run.content import check_ends
from pontryagin.run.errors import ExperimentError
from pontryagin.run.evaluation import Point
from pontryagin.run.figures.method_style import style_of
from pontryagin.run.methods import METHODS
from pontryagin.run.race import Run
from pontryagin.run.reports.words import number
from pontryagin.run.settings import RunSettings
from pontryagin.run.summary import Measured, summarize_training

COLUMNS = ("figure", "method", "seed", "iteration", "evaluations", "seconds", "train_loss", "test_loss",
           "accepted", "rho", "optimality_gap", "rejected", "epoch", "train_accuracy", "test_accuracy",
           "batch_loss", "train_metric", "test_metric", "validation_loss", "validation_accuracy",
           "validation_metric")


_READ = ("train_loss", "test_loss", "train_accuracy", "test_accuracy", "test_metric", "validation_loss",
         "validation_accuracy", "validation_metric")
"""Of these the scores in a Measured, in its order."""


def row(figure: str, run: Run, point: Point) -> tuple[Any, ...]:
    """Of metrics.csv, in the order of COLUMNS."""
    step, train, test, held = point.step, point.train, point.test, point.validation
    diagnostics = (None,) * 4 if step is None else (step.accepted, step.rho, step.optimality_gap,
                                                    step.rejected)
    return (figure, run.method.name, run.seed, point.iteration, point.evaluations, point.seconds,
            train and train.loss, test and test.loss, *diagnostics, point.epoch, train and train.accuracy,
            test and test.accuracy, step and step.loss, train and train.metric, test and test.metric,
            held and held.loss, held and held.accuracy, held and held.metric)


@dataclass
class History:
    """The evaluations by method and seed."""

    runs: dict[str, dict[int, list[Measured]]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    stopped: dict[str, list[str]] = field(default_factory=dict)

    def add(self, method: str, seed: int, measured: Measured) -> None:
        """In the order of iterations."""
        self.runs.setdefault(method, {}).setdefault(seed, []).append(measured)

    def take(self, run: Run, point: Point) -> None:
        """A point, if it was evaluated."""
        if point.train is not None and point.test is not None:
            self.add(run.method.name, run.seed, Measured(
                point.iteration, point.evaluations, point.seconds, point.train.loss, point.test.loss,
                point.train.accuracy, point.test.accuracy, point.test.metric,
                *(astuple(point.validation)[:3] if point.validation else ())))

    def read(self, path: Path) -> None:
        """From the metrics.csv of a training that is resumed."""
        try:
            with check_ends(path).open(encoding="utf-8", newline="") as file:
                for cells in csv.DictReader(file):
                    if None in (*cells, *cells.values()):
                        raise ValueError("a row has not as many cells as there are columns")
                    if cells["train_loss"]:
                        self.add(cells["method"], int(cells["seed"]), Measured(
                            int(cells["iteration"]), int(cells["evaluations"]), float(cells["seconds"]),
                            *(float(cells[name]) if cells[name] else None  # type: ignore[arg-type]
                              for name in _READ)))
        except (ValueError, TypeError, KeyError, csv.Error) as error:
            raise ExperimentError(f"{path}: is not the table that the checkpoint goes on from ({error}): it "
                                  "has been changed; start anew with --overwrite") from error

    def untuned(self, settings: RunSettings) -> list[str]:
        """Methods of this training whose rate is the first of a grid, chosen by nobody."""
        return [] if settings.tune or settings.find else [
            name for name in self.runs if name not in settings.rates and len(METHODS[name].rates) > 1]

    def results(self, batch_size: int) -> dict[str, dict[str, Any]]:
        """By method, over its seeds: see summarize_training."""
        return {method: summarize_training(list(seeds.values()), self.rates.get(method), batch_size)
                for method, seeds in self.runs.items()}


def sentences(results: dict[str, dict[str, Any]]) -> list[str]:
    """Of results by figure and method: what each method reached, after how much work."""
    return [f"{style_of(method).label}: {_sentence(result)}"
            for methods in results.values() for method, result in methods.items()]


def headline(methods: Mapping[str, Any], guess: float | None, untuned: Collection[str] = ()) -> str:
    """What came out, in one sentence: the methods, the best first; one alone beside guessing, or beside the
    loss before training. Empty without methods.

    guess: the test accuracy of always the class that is commonest in training. untuned: methods whose
    learning rate nobody chose.
    """
    scored = all("test_accuracy" in result for result in methods.values())
    value = {method: result["test_accuracy" if scored else "test_loss"]["median"]
             for method, result in methods.items()}
    told = {method: _shown(each) if not scored else f"{100 * each:.1f} %" for method, each in value.items()}
    what = "test accuracy" if scored else "test loss"
    if len(methods) == 1:
        (method, result), = methods.items()
        beside = (f"always guessing the commonest class: {100 * guess:.1f} %" if scored and guess is not None
                  else f"before training: {_shown(result.get('start_test_loss'))}")
        return f"{style_of(method).label}: {what} {told[method]} ({beside})."
    order = sorted(methods, key=lambda method: -value[method] if scored else _known(value[method]))
    star = "*" if len({*untuned} & {*order}) > 1 else ""
    longest = max((result["iterations"] for result in methods.values()), default=0)
    said = []
    for method in order:
        done, free = methods[method]["iterations"], method in untuned
        notes = ["rate not tuned"] if free and not star else []
        notes += [f"after {done:,} of {longest:,} iterations"] if done < longest else []
        said.append(f"{style_of(method).label}{star if free else ''} {told[method]}"
                    + (f" ({', '.join(notes)})" if notes else ""))
    return f"{what.capitalize()}: {', '.join(said)}{' (*: rate not tuned)' if star else ''}." if said else ""


def _sentence(result: dict[str, Any]) -> str:
    accuracy = result.get("test_accuracy")
    told = [f"test accuracy {percent(accuracy['median'])}"] if accuracy else []
    told += [f"test metric {result['test_metric']['median']:.4g}"] if "test_metric" in result else []
    told += [f"{part} loss {_shown(result[f'{part}_loss']['median'])}" for part in ("train", "test")]
    seconds = result["iterations"] * (result["seconds_per_iteration"] or 0.0)
    speed = result["samples_per_second"]
    return (f"{', '.join(told)} after {result['iterations']:,} iterations, {number(seconds)} s of training"
            + (f" ({number(speed)} samples/s)" if speed else "") + ".")


def _known(loss: float | None) -> float:
    """summary.json has null for what is not finite."""
    return loss if loss is not None and isfinite(loss) else inf


def _shown(loss: float | None) -> str:
    return "not finite" if loss is None else number(loss)


def percent(share: float) -> str:
    """0.98765 as 98.77 %."""
    return f"{100 * share:.2f} %"
