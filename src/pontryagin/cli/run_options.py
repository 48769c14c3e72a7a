"""Options of `train` and `compare`, and how they become settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from pontryagin.run import checkpoint
from pontryagin.run.errors import ExperimentError
from pontryagin.run.objective import OBJECTIVES
from pontryagin.run.parts import DESCRIPTION, READY_DATA, READY_MODELS, from_description, task_from
from pontryagin.run.settings import DTYPES, SCHEDULES, RunSettings, settings_from
from pontryagin.run.task import Task

QUICK = {"epochs": 2, "seeds": 1}
_SAME = ("epochs", "iterations", "batch_size", "schedule", "evaluations", "train_samples", "target_accuracy",
         "target_loss",
         "device", "dtype", "threads")
"""Options that are settings of the same name."""
_FREE = ("checkpoint_every", "tensorboard", "overwrite", "resume")


def add_task(options: ArgumentParser) -> None:
    """What is trained."""
    options.add_argument("--config", action="config", help="a YAML file with options")
    options.add_argument("--model", type=str, default="residual-cnn", help=(
        f"{', '.join(READY_MODELS)}, or a class or function of yours that makes a torch module, as "
        "my.module:Net"))
    options.add_argument("--model-args", type=dict[str, Any], default={},
                         help="its arguments, such as --model-args.width 64")
    options.add_argument("--data", type=str, default="digits", help=(
        f"{', '.join(READY_DATA)}, or a function of yours that returns (train, test), each a torch Dataset "
        "or a pair of tensors"))
    options.add_argument("--data-args", type=dict[str, Any], default={}, help="its arguments")
    options.add_argument("--loss", type=str | None, default=None, help=(
        f"{', '.join(OBJECTIVES)}, or my.module:function of (output, target), one number a sample; by "
        "default cross-entropy for whole-number targets and squared-error for others"))


def add_run(options: ArgumentParser, out: str) -> None:
    """How it is trained."""
    options.add_argument("--epochs", type=int, default=10, help="passes over the training set")
    options.add_argument("--iterations", type=int | None, default=None,
                         help="mini-batches, in the place of --epochs")
    options.add_argument("--batch-size", type=int, default=100, help="samples of a mini-batch")
    options.add_argument("--schedule", type=str, default="linear",
                         help=f"of the learning rate: {', '.join(SCHEDULES)}")
    options.add_argument("--seed", type=int, default=0,
                         help="of the initial weights and batches; the first of several")
    options.add_argument("--seeds", type=int, default=1, help="how many runs, on other weights and batches")
    options.add_argument("--evaluations", type=int | None, default=None,
                         help="by default one an epoch, at least ten")
    options.add_argument("--train-samples", type=int, default=2000,
                         help="training samples that an evaluation uses")
    options.add_argument("--target-accuracy", type=float | None, default=None,
                         help="stop at this share of the test set, as 0.98")
    options.add_argument("--target-loss", type=float | None, default=None, help="stop at this train loss")
    options.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, ...")
    options.add_argument("--dtype", type=str, default="float32", help=", ".join(DTYPES))
    options.add_argument("--threads", type=int | None, default=None, help="of torch; by default all cores")
    options.add_argument("--out", type=str, default=out, help="folder for the results, new or empty")
    options.add_argument("--quick", action="store_true", help="two epochs with one seed, for a first look")
    options.add_argument("--overwrite", action="store_true", help="replace the run that is in the folder")
    options.add_argument("--resume", action="store_true", help=(
        "go on with the run in the folder, bit by bit as if it had not been stopped; its settings are those "
        "of its checkpoint"))
    options.add_argument("--checkpoint-every", type=float, default=10.0, help="seconds between checkpoints")
    options.add_argument("--tensorboard", action="store_true", help="write event files for TensorBoard too")


def request(options: Namespace, given: Namespace, methods: Mapping[str, Any]) -> tuple[Task, RunSettings]:
    """The task and settings that the options ask for. given: only the options that the user gave; with
    --resume the others are the checkpoint's. methods: the settings that name methods. Raises
    ExperimentError."""
    found = checkpoint.read_last(Path(options.out) / "checkpoint.pt") if options.resume else None
    named = {name: options[name] for name in DESCRIPTION}
    if found is None:
        settings = RunSettings(out=Path(options.out), **_settings(options), **methods,
                               **{name: options[name] for name in _FREE})
        return task_from(**named), settings
    saved = found[0]
    wanted = {name: named[name] for name in DESCRIPTION if name in given}
    differing = _differing(saved["task"], wanted) + _differing(saved["settings"],
                                                               _given_settings(options, given, methods))
    if differing:
        raise ExperimentError(f"--resume: the run in {options.out} has other settings "
                              f"({'; '.join(differing)}): leave these options out, or start anew in another "
                              "folder")
    settings = settings_from(saved["settings"], Path(options.out), **{name: options[name] for name in _FREE})
    return from_description(saved["task"], {name: str(value) for name, value in wanted.items()}), settings


def _settings(options: Namespace) -> dict[str, Any]:
    values = {name: options[name] for name in (*_SAME, "seed", "seeds")}
    if options.quick:
        values |= QUICK
    if values["seeds"] < 1:
        raise ExperimentError(f"--seeds: expected a number >= 1, found {values['seeds']}")
    first, count = values.pop("seed"), values.pop("seeds")
    return values | {"seeds": tuple(range(first, first + count))}


def _given_settings(options: Namespace, given: Namespace, methods: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that the user has named, as the checkpoint has them."""
    everything = _settings(options)
    names = {name for name in _SAME if name in given} | ({"epochs", "seeds"} if "quick" in given else set())
    if "seed" in given or "seeds" in given:
        names.add("seeds")
    chosen = {name: everything[name]
              for name in names} | {name: value for name, value in methods.items() if value is not None}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}


def _differing(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {saved.get(name)!r} there, {value!r} asked for" for name, value in wanted.items()
            if saved.get(name) != value]
