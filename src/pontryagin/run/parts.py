"""A task from names: models, data and losses that are ready, or a user's own by import path."""

from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from types import NoneType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pontryagin.run.class_weights import ClassWeights, weighted
from pontryagin.run.data import load_images
from pontryagin.run.errors import ExperimentError, shown, unknown
from pontryagin.run.metric import Metric
from pontryagin.run.models import autoencoder, mlp, normalized_mlp, residual_cnn
from pontryagin.run.objective import OBJECTIVES, Objective, objective_named
from pontryagin.run.samples import Samples, hold_out, samples_of
from pontryagin.run.splits import Splits, some_targets, splits_of
from pontryagin.run.task import Task
from pontryagin.run.user_code import call, import_object
from pontryagin.run.weights import file_digest, named_state, put_into

READY_MODELS: dict[str, Callable[..., nn.Module]] = {
    "residual-cnn": residual_cnn, "mlp": mlp, "normalized-mlp": normalized_mlp, "autoencoder": autoencoder}
READY_DATA = ("digits", "mnist", "fashion-mnist")
DESCRIPTION = ("model", "model_args", "data", "data_args", "loss", "collate", "metric", "class_weights",
               "validation", "weights", "weights_sha256")
"""Keys of a description; its values are the arguments of `task_from`."""
OWN_CODE = ("model", "data", "loss", "collate", "metric")
"""Those that may name a user's own code, as package.module:name."""


def task_from(model: str, data: str, loss: str | None = None, model_args: Mapping[str, Any] | None = None,
              data_args: Mapping[str, Any] | None = None, *, collate: str | None = None,
              metric: str | None = None, class_weights: ClassWeights = None,
              validation: float | str | None = None, weights: str | Path | None = None,
              weights_sha256: str | None = None) -> Task:
    """A task from names.

    loss: one of OBJECTIVES or `my.module:function`; by default cross-entropy for whole-number targets, else
    squared error. collate, metric: `my.module:function` (DatasetSamples, Metric). class_weights: see
    `weighted`. validation: the share of the training set that is held out, or `own`: the data's own part.
    weights: a file from which the network begins, with this SHA-256 where one is given. Raises
    ExperimentError.
    """
    splits = load_data(data, data_args)
    begin, found = _beginning(weights, weights_sha256)

    def build() -> nn.Module:
        network = build_model(model, model_args, splits)
        begin(network)
        return network

    with torch.random.fork_rng():
        build()  # what is wrong with it is said before any work
    described = {"model": model, "model_args": dict(model_args or {}), "data": data,
                 "data_args": dict(data_args or {}), "loss": loss, "collate": collate, "metric": metric,
                 "class_weights": list(class_weights) if isinstance(class_weights, tuple) else class_weights,
                 "validation": validation, "weights": weights and str(weights), "weights_sha256": found}
    name = " on ".join(spec.rpartition(":")[2] for spec in (model, data))
    own = import_object(collate, "collate") if collate else None
    train, held = _validation(splits, samples_of(splits.train, own), validation, own)
    return Task(name, build, train, samples_of(splits.test, own),
                weighted(_objective(loss, splits), class_weights, train), described, held,
                Metric(metric, import_object(metric, "metric")) if metric else None)


def _beginning(weights: str | Path | None, expected: str | None) -> tuple[Callable[[nn.Module], None],
                                                                          str | None]:
    """What puts the weights of a file into a network, and the file's SHA-256. Raises ExperimentError."""
    if weights is None:
        return lambda _: None, None
    path = Path(weights)
    state, found = named_state(path), file_digest(path)
    if expected not in (None, found):
        raise ExperimentError(f"--weights {path}: is not the file any more from which the run began: put it "
                              "back, or start anew in another folder")
    return lambda network: put_into(network, state, path), found


def _validation(splits: Splits, train: Samples, wanted: float | str | None,
                collate: Callable[[list[Any]], Any] | None) -> tuple[Samples, Samples | None]:
    """The samples for training, and those for validation if they are wanted. Raises ExperimentError."""
    if wanted is None:
        return train, None
    if isinstance(wanted, str):
        if wanted != "own" or splits.validation is None:
            raise ExperimentError(f"--validation {wanted}: the data have no validation part: give the share "
                                  "of the training set that is to be one, as 0.1")
        return train, samples_of(splits.validation, collate)
    if splits.validation is not None:
        raise ExperimentError(f"--validation {wanted:g}: the data have a validation part: write --validation "
                              "own")
    return hold_out(train, wanted)


_KINDS: Mapping[str, Any] = {"model_args": dict, "data_args": dict, "class_weights": (list, str, NoneType),
                             "validation": (float, str, NoneType)}
"""Of the values of a description; of others a text or nothing."""


def from_description(description: Mapping[str, Any], given: Mapping[str, str]) -> Task:
    """The task of a checkpoint. given: names on the command line; a file alone never decides what code is
    imported.

    Raises ExperimentError when the description names code of a user's own that is not given again.
    """
    if set(description) != set(DESCRIPTION):
        raise ExperimentError("the checkpoint's task was not made from names: expected "
                              f"{', '.join(DESCRIPTION)}, found "
                              f"{', '.join(map(str, description)) or 'nothing'}")
    for name, value in description.items():
        if not isinstance(value, _KINDS.get(name, (str, NoneType))):
            raise ExperimentError(f"the checkpoint's task has {shown(value)} as its {name}: it has been "
                                  "changed")
    unconfirmed = [part for part in OWN_CODE
                   if ":" in str(description[part]) and given.get(part) != description[part]]
    if unconfirmed:
        wanted = " ".join(f"--{part} {description[part]}" for part in unconfirmed)
        raise ExperimentError("the checkpoint was made with code that it does not hold; to import that "
                              f"code, add: {wanted}")
    return task_from(**description)


def load_data(spec: str, arguments: Mapping[str, Any] | None = None) -> Splits:
    """Ready data (digits, mnist, fashion-mnist; arguments of `ready_data`), or what `my.module:load` returns
    for its arguments.

    That is (train, test), (train, test, validation) or a dict with these keys, each a pair of tensors or a
    torch Dataset. Raises ExperimentError.
    """
    given, what = dict(arguments or {}), f"data {spec!r}"
    if ":" not in spec:
        if spec not in READY_DATA:
            raise _no_data(spec)
        return cast("Splits", call(ready_data, {"name": spec} | given, what))
    return splits_of(call(import_object(spec, "data"), given, what), what)


def _no_data(spec: str) -> ExperimentError:
    if Path(spec).exists():
        return ExperimentError(f"data {spec!r} is a folder or file of this machine: name the data set "
                               f"({', '.join(READY_DATA)} or my.module:function), and a folder of its files "
                               f"by --data-args.folder {spec}")
    return unknown("data", [spec], (*READY_DATA, "my.module:function"))


def ready_data(name: str, *, folder: str | Path | None = None, standardize: bool = True,
               reconstruct: bool = False) -> Splits:
    """Images and labels. standardize: mean 0 and deviation 1 over all training pixels together.

    reconstruct: the target is the image itself, flattened, in [0, 1], as for an autoencoder; nothing is
    standardized then.
    """
    if name == "digits" and folder is not None:
        raise ExperimentError("data 'digits' has no argument folder: it comes with scikit-learn; leave it "
                              "out")
    for option, value in (("standardize", standardize), ("reconstruct", reconstruct)):
        if not isinstance(value, bool):
            raise ExperimentError(f"data {name!r}, {option}: expected true or false, found {shown(value)}")
    images = load_images(name, folder)
    moved = standardize and not reconstruct
    shift, scale = (images.train.mean(), images.train.std()) if moved else (0.0, 1.0)

    def part(pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return (pixels, pixels.flatten(1)) if reconstruct else ((pixels - shift) / scale, labels)

    held = images.validation is not None and len(images.validation) > 0
    return Splits(part(images.train, images.train_labels), part(images.test, images.test_labels),
                  part(images.validation, images.validation_labels) if held else None)  # type: ignore[arg-type]


def build_model(spec: str, arguments: Mapping[str, Any] | None, data: Splits) -> nn.Module:
    """A ready model, sized for the data where the arguments leave that open, or what `my.module:Net` returns
    for its arguments.

    Initial weights come from torch's global generator. Raises ExperimentError.
    """
    given, what = dict(arguments or {}), f"model {spec!r}"
    if ":" in spec:
        found = import_object(spec, "model")
        if isinstance(found, nn.Module):
            raise ExperimentError(f"{what}: is a module that has been made already; every run needs its own "
                                  "initial weights: name the class, or a function that makes it")
        return _usable(call(found, given, what), what)
    if spec not in READY_MODELS:
        raise unknown("model", [spec], (*READY_MODELS, "my.module:Class"))
    make = READY_MODELS[spec]
    fitting = {"shape": data.shape, "outputs": data.outputs}
    for name in signature(make).parameters.keys() & fitting.keys() - given.keys():
        given[name] = fitting[name]()
        if given[name] is None:
            raise ExperimentError(f"{what}: the number of its outputs cannot be told from a "
                                  f"{type(data.train).__name__}: give the model's argument outputs")
    return cast("nn.Module", call(make, given, what))


def _usable(model: Any, what: str) -> nn.Module:
    """That it is a network whose weights have values. Raises ExperimentError."""
    if not isinstance(model, nn.Module):
        raise ExperimentError(f"{what}: expected a torch module, but it returned {type(model).__name__}")
    if "_modules" not in vars(model):
        raise ExperimentError(f"{what}: it is no whole module: call super().__init__() first in its __init__")
    for name, value in model.named_parameters():
        if is_lazy(value):
            raise ExperimentError(f"{what}: {name} has no shape yet: call the network on an example before "
                                  "it is returned, as its Lazy layers ask for")
        if value.is_meta:
            raise ExperimentError(f"{what}: {name} is a meta tensor, without values: make it on the cpu")
    return model


def load_cost(spec: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A user's loss `my.module:function` of (output, target). Raises ExperimentError."""
    return import_object(spec, "loss")


def _objective(loss: str | None, splits: Splits) -> Objective:
    """By name, by import path, or by the kind of the targets."""
    targets = some_targets(splits.train)
    if loss is None:
        return OBJECTIVES["squared-error" if targets.is_floating_point() else "cross-entropy"]
    if ":" not in loss:
        return objective_named(loss)
    return Objective(loss, load_cost(loss), classifies=not targets.is_floating_point() and targets.ndim == 1)
