"""What a training takes beside the task, checked before any work."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import cos, isfinite, pi
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch

from pontryagin.run.errors import ExperimentError, need, shown, unknown
from pontryagin.run.methods import METHODS, choose, of_methods
from pontryagin.run.option import MOST_THREADS, MOST_WORKERS, check_numbers, option, seed_numbers

Schedule = Callable[[float], float]
SCHEDULES: dict[str, Schedule] = {
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + cos(pi * done)) / 2,
    "constant": lambda done: 1.0,
}
"""By name: the factor when the share `done` in [0, 1) of the iterations has been run."""

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
FREE = ("out", "overwrite", "resume", "checkpoint_every", "tensorboard")
"""Settings that may be others when a training is resumed."""

_LARGEST_RATE = 1e30
"""So that a rate times anything near 1 is a number in float32 too."""


@dataclass(frozen=True)
class RunSettings:
    """Methods are run side by side, an iteration each in turn, from equal weights on equal batches, one seed
    after the other.

    rates, options, limits: by method: the learning rate (by default the method's own), its options, and an
    iteration after which it is stopped while the schedule is still that of the whole run. iterations: in the
    place of epochs. evaluations: how many, evenly over the run, beside the one at the start (by default one
    an epoch, at least ten); train_samples: how many samples of the training set they use. target_accuracy (of
    the test set), target_loss (of those training samples): a run ends at the first evaluation that reaches
    one. tune: iterations of a run at every rate of a method's grid, which choose among them; find: pilots
    choose (tuning.py). checkpoint_every: seconds.
    """

    out: Path = option("folder for the results, new or empty", Path("runs/train"))
    methods: tuple[str, ...] = ("emsa",)
    seeds: tuple[int, ...] = (0,)
    epochs: int = option("passes over the training set", 10, least=1)
    iterations: int | None = option("mini-batches, in the place of --epochs", None, least=1)
    batch_size: int = option("samples of a mini-batch", 100, least=1)
    rates: dict[str, float] = option("by method, such as --rates.adam 0.002; not tuned", {})
    options: dict[str, dict[str, Any]] = option(
        """by method, such as --options '{"emsa": {"damping": 0.3}}'""", {})
    limits: Mapping[str, int] = field(default_factory=dict)
    schedule: str = option(f"of the learning rate: {', '.join(SCHEDULES)}", "linear")
    warm_up: float = option("iterations in which the rate rises first, or a share of them below 1", 0.0,
                            least=0)
    clip_norm: float | None = option("largest norm of the gradient, of all parameters together", None,
                                     least=1e-30)
    autocast: bool = option("the network in bfloat16 where torch's autocast takes it, weights in float32",
                            False)
    evaluations: int | None = option("by default one an epoch, at least ten", None, least=1)
    train_samples: int = option("training samples that an evaluation uses", 2000, least=1)
    target_accuracy: float | None = option("stop at this share of the test set, as 0.98", None)
    target_loss: float | None = option("stop at this train loss", None)
    patience: int | None = option(
        "stop after so many evaluations without a lower loss (with --metric: a greater metric) of the "
        "validation part, or of the test set where there is none", None, least=1)
    tune: int = field(default=0, metadata={"least": 0})
    find: bool = False
    device: str = option("cpu, cuda, cuda:1, ...", "cpu")
    dtype: str = option(", ".join(DTYPES), "float32")
    threads: int | None = option("of torch; by default all cores", None, least=1, most=MOST_THREADS)
    num_workers: int = option("processes that read the samples of a Dataset ahead, for every method", 0,
                              least=0, most=MOST_WORKERS)
    checkpoint_every: float = option("seconds between checkpoints", 10.0, least=0)
    tensorboard: bool = option("write event files for TensorBoard too", False)
    overwrite: bool = option("replace the run that is in the folder", False)
    resume: bool = option("go on with the run in the folder, bit by bit as if it had not been stopped; its "
                          "settings are those of its checkpoint", False)

    def __post_init__(self) -> None:
        check_numbers(self)
        seed_numbers(self.seeds)
        for what, known in (("schedule", SCHEDULES), ("dtype", DTYPES)):
            if getattr(self, what) not in known:
                raise unknown(f"--{what}", [getattr(self, what)], known)
        if self.target_accuracy is not None and not 0 < self.target_accuracy <= 1:
            raise ExperimentError("--target-accuracy: expected a share in (0, 1], such as 0.98, found "
                                  f"{self.target_accuracy}")
        if self.target_loss is not None and not isfinite(self.target_loss):
            raise ExperimentError(f"--target-loss: expected a number, found {self.target_loss}")
        if self.overwrite and self.resume:
            raise ExperimentError("--overwrite removes the run that --resume would go on with: give one of "
                                  "them")
        choose(self.methods)
        self._check_recipe()
        for name in ("rates", "options", "limits"):
            of_methods(name, getattr(self, name), self.methods, METHODS)
        for method, rate in self.rates.items():
            if not 0 < rate <= _LARGEST_RATE:
                raise ExperimentError(f"--lr: expected a rate > 0 and at most {_LARGEST_RATE:g} for "
                                      f"{method}, found {rate}")
        if self.tensorboard:
            need("tensorboard", "--tensorboard")
        self.place()

    def _check_recipe(self) -> None:
        """Raises ExperimentError for what has no effect, or no meaning."""
        if self.warm_up >= 1 and self.warm_up != int(self.warm_up):
            raise ExperimentError("--warm-up: expected a number of iterations, or a share of them below 1, "
                                  f"found {self.warm_up}")
        if self.autocast and self.dtype != "float32":
            raise ExperimentError(f"--autocast: expected --dtype float32, from which it takes the network to "
                                  f"bfloat16, found {self.dtype}")
        for name, methods in self.left().items():
            if len(methods) == len(choose(self.methods)):
                raise ExperimentError(f"--{name.replace('_', '-')}: has no effect on {', '.join(methods)}: "
                                      "leave it out, or take another method")

    def left(self) -> dict[str, list[str]]:
        """Of the settings in another place than their defaults, those that some methods leave, with these."""
        defaults = RunSettings.__dataclass_fields__
        given = [name for name in ("schedule", "warm_up", "clip_norm", "autocast")
                 if getattr(self, name) != defaults[name].default]
        found = {name: [method.name for method in choose(self.methods) if name in method.leaves]
                 for name in given}
        return {name: methods for name, methods in found.items() if methods}

    def place(self) -> tuple[torch.device, torch.dtype]:
        """Device and dtype. Raises ExperimentError when the device is not there."""
        return usable_device(self.device), DTYPES[self.dtype]

    def plain(self) -> dict[str, Any]:
        """As plain types, for summary.json."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def binding(self) -> dict[str, Any]:
        """What must not change when a run is resumed, threads as they are in force."""
        kept = {name: value for name, value in self.plain().items() if name not in FREE}
        return kept | {"threads": self.threads or torch.get_num_threads()}


def usable_device(name: str) -> torch.device:
    """A device by its name. Raises ExperimentError when it is not there, or holds no numbers."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).splitlines()[0] if len(str(error)) < 200 else "torch has no such device here"
        raise ExperimentError(f"--device {name}: cannot be used ({reason}); expected cpu, or cuda "
                              "where torch finds a GPU") from error
    return device


def settings_from(binding: Mapping[str, Any], out: Path, *, checkpoint_every: float, tensorboard: bool,
                  overwrite: bool, resume: bool) -> RunSettings:
    """Of a checkpoint's binding settings. Raises ExperimentError when they are not those of this version."""
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value
                              for name, value in binding.items()}
    expected = {name for name in RunSettings.__dataclass_fields__ if name not in FREE}
    if set(fields) != expected:
        differing = ", ".join(sorted(expected ^ set(fields)))
        raise ExperimentError(f"the checkpoint's settings are not those of this version: {differing}")
    hints = get_type_hints(RunSettings)
    if wrong := [name for name, value in fields.items() if not _fits(hints[name], value)]:
        raise ExperimentError(f"the checkpoint's setting {wrong[0]} is {shown(fields[wrong[0]])}, which no "
                              "run writes: the file has been changed")
    return RunSettings(out=out, checkpoint_every=checkpoint_every, tensorboard=tensorboard,
                       overwrite=overwrite, resume=resume, **fields)


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value from a file is of a field's type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(one, value) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(inner[0], one) for one in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(
            isinstance(key, str) and _fits(inner[1], one) for key, one in value.items())
    if hint is Any:
        return True
    return isinstance(value, (int, float) if hint is float else hint) and isinstance(value,
                                                                                     bool) == (hint is bool)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (tuple, list)) else value
