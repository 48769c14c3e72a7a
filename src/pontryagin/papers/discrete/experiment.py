"""`pontryagin reproduce binary` and `ternary`: the methods of Li and Hao's comparison in one run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pontryagin.export import packed_state, save_packed, size_report
from pontryagin.papers.discrete.paper import BATCH, EPOCHS, WIDTH, printed
from pontryagin.papers.discrete.weights import (
    WeightWatcher,
    density_of,
    recalibrated,
    rounded_model,
    weights_of,
)
from pontryagin.problem.admissible import DiscreteSet
from pontryagin.run import checkpoint
from pontryagin.run.callbacks import ProgressDisplay, ReportContext
from pontryagin.run.data.images import Images, load_images
from pontryagin.run.errors import ExperimentError, unknown
from pontryagin.run.evaluation import evaluate
from pontryagin.run.files import write_json
from pontryagin.run.folder import last_checkpoint
from pontryagin.run.methods import of_methods
from pontryagin.run.methods.discrete import set_named
from pontryagin.run.models import normalized_mlp
from pontryagin.run.objective import objective_named
from pontryagin.run.option import MOST_THREADS, SEEDS, Seeds, check_numbers, option, seed_numbers
from pontryagin.run.progress import Progress
from pontryagin.run.samples import TensorSamples
from pontryagin.run.settings import RunSettings, settings_from
from pontryagin.run.tables import read_summary
from pontryagin.run.task import Task
from pontryagin.run.training import run_training

_START: dict[str, dict[str, float]] = {"binary": {"start": 1e-5}, "ternary": {}}
"""Li and Hao's loss for binary weights is a mean over 10 classes, ours their sum: in its unit their 1e-6 is
this."""
METHODS = {"binary": ("emsa", "li-hao", "bop", "binaryconnect", "rounding"),
           "ternary": ("emsa", "li-hao", "binaryconnect", "rounding")}
"""Of each experiment, in the order of tables. rounding trains real weights by Adam (the row `adam`) and
rounds them."""
QUICK_EPOCHS, QUICK_WIDTH = 20, 128
DENSITY = 0.09
"""Of the ternary weights by E-MSA: below what the rule of Li and Hao leaves after 10 epochs."""


@dataclass(frozen=True)
class DiscreteSettings:
    """What the commands take. kind: binary or ternary. data: mnist, fashion-mnist or digits; folder: of
    IDX files."""

    kind: str
    out: Path = option("folder for the results, new or empty", Path("runs/discrete"))
    data: str = option("mnist, fashion-mnist or digits", "mnist")
    folder: Path | None = option("of the IDX files (or PONTRYAGIN_DATA)", None)
    seeds: Seeds = option(SEEDS, 1)
    epochs: int = option("passes over the training set", 10, least=1)
    width: int = option("units of each of the three hidden layers", WIDTH, least=1, most=1 << 14)
    random_normalization: bool = option(
        "scales and shifts of the normalizations begin at random, as in the authors' code, not at 1 and 0",
        False)
    methods: tuple[str, ...] | None = option("all, or names with commas", None)
    threads: int = option("of torch", 1, least=1, most=MOST_THREADS)
    options: dict[str, dict[str, Any]] = option("by method, as --options.li-hao.rho 0.3", {})
    rates: dict[str, float] = option("by method, such as --rates.binaryconnect 3e-3", {})
    tune: int = option("iterations of a tuning run of each rate of a grid; 0: none", 0, least=0)
    overwrite: bool = option("replace the run that is in the folder", False)
    resume: bool = option("go on with the run in the folder, with its own settings", False)

    def __post_init__(self) -> None:
        printed(self.kind)
        check_numbers(self)
        seed_numbers(self.seeds)
        if wrong := [name for name in self.methods or () if name not in METHODS[self.kind]]:
            raise unknown(f"method of {self.kind}", wrong, METHODS[self.kind])
        for what in ("options", "rates"):
            of_methods(what, getattr(self, what), self.trained,
                       known=tuple(map(_training, METHODS[self.kind])))

    @property
    def chosen(self) -> tuple[str, ...]:
        """The methods, in the order of METHODS."""
        return tuple(name for name in METHODS[self.kind] if self.methods is None or name in self.methods)

    @property
    def trained(self) -> tuple[str, ...]:
        """The names that the run itself, its rates and options have: rounding is training by adam."""
        return tuple(map(_training, self.chosen))

    def description(self) -> dict[str, Any]:
        """Of the task, for its checkpoints."""
        start = "random" if self.random_normalization else "1 and 0"
        return {"model": f"normalized_mlp, width {self.width}, depth 3, normalizations begin at {start}",
                "data": self.data, "loss": printed(self.kind).objective, "weights": self.kind,
                "width": self.width, "random_normalization": self.random_normalization,
                "folder": None if self.folder is None else str(self.folder)}

    def quick(self) -> "DiscreteSettings":
        """A first look, in what is at its default: digits, a narrower network, more epochs of less data."""
        short: dict[str, Any] = {"data": "digits", "epochs": QUICK_EPOCHS, "width": QUICK_WIDTH}
        usual = DiscreteSettings(self.kind, self.out)
        return replace(self, **{name: value for name,
                                value in short.items() if getattr(self, name) == getattr(usual, name)})


def _training(name: str) -> str:
    """The method of training that one of the comparison is."""
    return "adam" if name == "rounding" else name


def run_discrete(settings: DiscreteSettings, command: str, display: ProgressDisplay,
                 progress: Progress) -> tuple[Path, bool]:
    """Train, round and export; writes the files of a run, weights.csv, rounded models and packed ones.

    Returns the folder and whether something is left to be resumed: then it goes on with what it was started
    with, but for a folder of data that is named now. Raises ExperimentError before any work when a setting is
    wrong, and when a weight leaves its set.
    """
    saved = last_checkpoint(settings.out, settings.resume)
    description = settings.description() if saved is None else saved["task"]
    if description.get("weights") != settings.kind:
        raise ExperimentError(f"--resume: {settings.out} holds no run of {settings.kind}: its task is "
                              f"{description}")
    task = _task(description,
                 load_images(description["data"], settings.folder or description["folder"], progress))
    run = _run_settings(settings, len(task.train) // BATCH) if saved is None else settings_from(
        saved["settings"], settings.out, checkpoint_every=RunSettings.checkpoint_every, tensorboard=False,
        overwrite=False, resume=True)
    admissible, discrete = _set(settings.kind), [name for name in run.methods if name != "adam"]
    outcome = run_training(task, run, command, display,
                           WeightWatcher(settings.out, dict.fromkeys(discrete, admissible)),
                           ReportContext(settings.kind, command=f"reproduce {settings.kind}"))
    _finish(settings.kind, run, task, [] if outcome.interrupted else discrete)
    return settings.out, outcome.interrupted


def _task(description: Mapping[str, Any], images: Images) -> Task:
    build = partial(normalized_mlp, tuple(images.train.shape[1:]), int(images.train_labels.max()) + 1,
                    width=description["width"], random_normalization=description["random_normalization"])
    return Task(f"{description['data']}, {description['weights']}", build,
                TensorSamples(images.train, images.train_labels),
                TensorSamples(images.test, images.test_labels), objective_named(description["loss"]),
                dict(description))


def _run_settings(settings: DiscreteSettings, batches: int) -> RunSettings:
    """rounding stands for adam in the run itself."""
    methods = settings.trained
    price = {"density": DENSITY} if settings.kind == "ternary" else {}
    own: dict[str, dict[str, Any]] = {
        "emsa": {"admissible": settings.kind, **price},
        "li-hao": {"admissible": settings.kind, "period": batches, **_START[settings.kind]},
        "binaryconnect": {"admissible": settings.kind}}
    options = {name: own.get(name, {}) | dict(settings.options.get(name, {})) for name in methods}
    return RunSettings(out=settings.out, methods=methods, seeds=seed_numbers(settings.seeds),
                       epochs=settings.epochs, batch_size=BATCH,
                       rates=settings.rates,
                       options={name: found for name, found in options.items() if found},
                       evaluations=settings.epochs, tune=settings.tune, threads=settings.threads,
                       overwrite=settings.overwrite, resume=settings.resume)


def _finish(kind: str, run: RunSettings, task: Task, methods: list[str]) -> None:
    """What summary.json says beside a training's; rounded models of Adam's and packed ones of these
    methods."""
    path, paper = run.out / "summary.json", printed(kind)
    summary = read_summary(path)
    results = summary["results"][task.name]
    for name in methods:
        models = {f"{name}-seed{seed}": _trained(run.out, task, f"{name}-seed{seed}") for seed in run.seeds}
        for file, model in models.items():
            state = packed_state(model.state_dict(), dict.fromkeys(weights_of(model), _set(kind)))
            save_packed(run.out / "models" / f"{file}.packed", state)
            results[name].setdefault("packed_bytes", size_report(state).after)
        results[name] |= {"density": [density_of(model) for model in models.values()],
                          "recalibrated_error": [_error(recalibrated(model, task.train), task)
                                                 for model in models.values()]}
    rounded = [row for seed in (run.seeds if methods and "adam" in results else ())
               for row in _rounded(kind, _trained(run.out, task, f"adam-seed{seed}"), task, seed)]
    write_json(path, summary | {"experiment": kind, "rounded": rounded, "printed": {
        "test_error": paper.errors, "density": paper.density, "epochs": EPOCHS}})


def _rounded(kind: str, model: torch.nn.Module, task: Task, seed: int) -> list[dict[str, Any]]:
    """Test error of the rounded network, by how its scales and normalizations are chosen."""
    found = []
    for scale, name in (("one for all rows", kind), ("one per row", f"{kind}-rows")):
        rounded = rounded_model(model, _set(name))
        for again in (False, True):
            current = recalibrated(rounded, task.train) if again else rounded
            found.append({"seed": seed, "scale": scale, "recalibrated": again,
                          "test_error": _error(current, task), "density": density_of(rounded)})
    return found


def _error(model: torch.nn.Module, task: Task) -> float:
    """Test error in per cent."""
    found = evaluate(model, task.test, torch.arange(len(task.test)), task.objective)
    return 100 * (1 - (found.accuracy or 0.0))


def _trained(out: Path, task: Task, name: str) -> torch.nn.Module:
    model = task.build()
    model.load_state_dict(checkpoint.read(out / "models" / f"{name}.pt")["model"])
    return model.eval()


def _set(name: str) -> DiscreteSet:
    found = set_named(name)
    assert isinstance(found, DiscreteSet)
    return found
