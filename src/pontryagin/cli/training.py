"""`pontryagin train` and `pontryagin compare`: a model, data, methods."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pontryagin.cli.options import Call, Command
from pontryagin.errors import NonFiniteError
from pontryagin.run.callbacks import TerminalDisplay
from pontryagin.run.errors import ExperimentError
from pontryagin.run.folder import last_checkpoint
from pontryagin.run.methods import METHODS, choose
from pontryagin.run.objective import OBJECTIVES
from pontryagin.run.option import LAST_SEED, SEEDS, Seeds, option, seed_numbers
from pontryagin.run.parts import DESCRIPTION, READY_DATA, READY_MODELS, from_description, task_from
from pontryagin.run.settings import FREE, RunSettings, settings_from
from pontryagin.run.task import Task
from pontryagin.run.training import Outcome, run_training

QUICK = {"epochs": 2, "seeds": 1}
_DECIDES = {"method": ("methods",), "lr": ("rates", "find"), "seed": ("seeds",), "tune": ("tune", "find")}
"""Options that decide settings of other names."""


@dataclass(frozen=True)
class TaskOptions:
    """What is trained."""

    model: str = option(f"{', '.join(READY_MODELS)}, or a class or function of yours that makes a torch "
                        "module, as my.module:Net", "residual-cnn")
    model_args: dict[str, Any] = option("its arguments, such as --model-args.width 64", {})
    data: str = option(f"{', '.join(READY_DATA)}, or a function of yours that returns (train, test), each a "
                       "torch Dataset or a pair of tensors", "digits")
    data_args: dict[str, Any] = option("its arguments", {})
    loss: str | None = option(
        f"{', '.join(OBJECTIVES)}, or my.module:function of (output, target), one number a sample; by "
        "default cross-entropy for whole-number targets and squared-error for others", None)
    weights: Path | None = option("begin from those of a trained network: a model of a run, a state dict or "
                                  "a safetensors file", None)
    validation: float | Literal["own"] | None = option(
        "share of the training set that is held out and evaluated too, as 0.1; own: the data's own part",
        None)
    metric: str | None = option("my.module:function of all (outputs, targets) of a part, a number, greater "
                                "for a better network", None)
    class_weights: tuple[float, ...] | Literal["balanced"] | None = option(
        "of the cost of each class, with commas; balanced: by their shares of the training set", None)
    collate: str | None = option("my.module:function of a list of items of a Dataset, a batch (inputs, "
                                 "targets)", None)


@dataclass(frozen=True)
class SeedOptions:
    """Which seeds, and how long."""

    seed: int = option("of the initial weights and batches; the first of several", 0, least=0, most=LAST_SEED)
    seeds: Seeds = option(SEEDS, 1)
    quick: bool = option("two epochs with one seed, for a first look", False)


@dataclass(frozen=True)
class MethodOptions:
    """Of one method."""

    method: str = option(", ".join(METHODS), "emsa")
    lr: float | Literal["find"] | None = option(
        "learning rate; by default the method's own; find: by pilots, short runs that come first", None)
    options: dict[str, Any] = option("of the method, such as --options.damping 0.3", {})


@dataclass(frozen=True)
class CompareOptions:
    """Of several methods."""

    methods: tuple[str, ...] | None = option(f"all, or names with commas: {', '.join(METHODS)}",
                                             ("emsa", "sgd-momentum", "adam"))
    tune: int | Literal["find"] = option("iterations of a tuning run at every rate of the grid; find: pilots "
                                         "choose the rates; 0: no tuning", 0, least=0)


def _train(call: Call) -> bool:
    chosen = call.make(MethodOptions)
    rates = {chosen.method: chosen.lr} if isinstance(chosen.lr, float) else {}
    options = {chosen.method: chosen.options} if chosen.options else {}
    return _run(call, {"methods": (chosen.method,), "rates": rates, "find": chosen.lr == "find",
                       "options": options})


def _compare(call: Call) -> bool:
    chosen = call.make(CompareOptions)
    return _run(call,
                {"methods": tuple(method.name for method in choose(chosen.methods)),
                 "find": chosen.tune == "find",
                 "tune": 0 if chosen.tune == "find" else chosen.tune})


def _run(call: Call, methods: Mapping[str, Any]) -> bool:
    task, settings = request(call, methods)
    outcome = run_training(task, settings, call.line, TerminalDisplay(call.console))
    return tell(call, outcome, "add")


def tell(call: Call, outcome: Outcome, resume: str) -> bool:
    """Say how it went, and where everything is; whether it was interrupted. resume: what goes on, less its
    options."""
    call.say(*outcome.sentences, outcome.headline)
    if outcome.interrupted:
        call.say(f"Interrupted, with a checkpoint. Go on: {resume} --resume --out {outcome.out}")
    if outcome.report is not None:
        call.say(f"Report: {outcome.report}")
    if outcome.failed:
        raise NonFiniteError("; ".join(f"{method}: {reasons[0]}"
                                       for method, reasons in outcome.stopped.items()))
    return outcome.interrupted


def request(call: Call, methods: Mapping[str, Any]) -> tuple[Task, RunSettings]:
    """The task and settings that the options ask for; with --resume those of the checkpoint, which the
    options that the user gave must not contradict. methods: the settings that name methods. Raises
    ExperimentError."""
    named, settings = call.of(TaskOptions), {**call.of(RunSettings), **methods, "seeds": seeds(call)}
    free = {name: settings[name] for name in FREE}
    saved = last_checkpoint(free["out"], free["resume"])
    if saved is None:
        return task_from(**named), RunSettings(**settings)
    given = {*call.given} | (QUICK.keys() if call.values["quick"] else set())
    asked = {name: str(named[name]) if isinstance(named[name], Path) else named[name]
             for name in DESCRIPTION if name in given}
    bound = {name: settings[name]
             for name in {decided for name in given for decided in _DECIDES.get(name, (name,))}
             if name in settings and name not in FREE}
    differing = _differing(saved["task"], asked) + _differing(saved["settings"], bound)
    if differing:
        raise ExperimentError(f"--resume: the run in {free['out']} has other settings "
                              f"({'; '.join(differing)}): leave these options out, or start anew in another "
                              "folder")
    return (from_description(saved["task"], {name: str(value) for name, value in asked.items()}),
            settings_from(saved["settings"], **free))


def seeds(call: Call) -> tuple[int, ...]:
    """As many as --seeds says, from --seed on. Raises ExperimentError."""
    given = call.values["seeds"]
    if isinstance(given, tuple) and "seed" in call.given:
        raise ExperimentError(f"--seed and --seeds {','.join(map(str, given))}: give one of them")
    return seed_numbers(given, call.values.get("seed", 0))


def _differing(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in wanted.items()}
    return [f"{name}: {saved.get(name)!r} there, {value!r} asked for" for name, value in plain.items()
            if saved.get(name) != value]


_GRIDS = "; ".join(f"{name}: {', '.join(f'{rate:g}' for rate in method.rates)}"
                   for name, method in METHODS.items())
COMMANDS = {
    "train": Command(
        _train, (TaskOptions, MethodOptions, SeedOptions, RunSettings),
        "Train a model on data by a method. Writes metrics.csv, summary.json, figures, report.html, "
        "checkpoint.pt and the trained model into the folder. Ctrl-C stops it after the current iteration; "
        "--resume goes on, after a kill too. Without options: the paper's residual network on digits, by "
        "EMSA.", without={"rates"}, quick=QUICK),
    "compare": Command(
        _compare, (TaskOptions, CompareOptions, SeedOptions, RunSettings),
        "Train a model by several methods that take turns, an iteration each, from equal weights on equal "
        "batches. Writes the same files as `train`. With --tune, learning rates are chosen on these grids "
        f"(else the first is taken): {_GRIDS}.", defaults={"out": "runs/compare"}, quick=QUICK),
}
