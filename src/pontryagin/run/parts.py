"""A task from names: models, data and losses that are ready, or a user's own by import path."""

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from inspect import signature
from math import prod
from pathlib import Path
from types import NoneType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from pontryagin.run.class_weights import ClassWeights, weighted
from pontryagin.run.data import load_images
from pontryagin.run.errors import ExperimentError, shown, unknown
from pontryagin.run.metric import Metric
from pontryagin.run.models import autoencoder, mlp, normalized_mlp, residual_cnn
from pontryagin.run.objective import OBJECTIVES, Objective, objective_named
from pontryagin.run.samples import Samples, hold_out, is_dense, pair_of, samples_of
from pontryagin.run.task import Task
from pontryagin.run.user_code import call, import_object, kind_of
from pontryagin.run.weights import file_digest, named_state, put_into

READY_MODELS: dict[str, Callable[..., nn.Module]] = {
    "residual-cnn": residual_cnn, "mlp": mlp, "normalized-mlp": normalized_mlp, "autoencoder": autoencoder}
READY_DATA = ("digits", "mnist", "fashion-mnist")
DESCRIPTION = ("model", "model_args", "data", "data_args", "loss", "collate", "metric", "class_weights",
               "validation", "weights", "weights_sha256")
"""Keys of a description; its values are the arguments of `task_from`."""
OWN_CODE = ("model", "data", "loss", "collate", "metric")
"""Those that may name a user's own code, as package.module:name."""

_MOST = 2**31
"""Samples of a data set."""
Part = tuple[Tensor, Tensor] | Dataset[Any]
"""(inputs, targets), the first axis of both the samples, or a torch Dataset of such pairs."""


@dataclass(frozen=True)
class Splits:
    """Data for training and testing, and for validating if there is such a part."""

    train: Part
    test: Part
    validation: Part | None = None

    def shape(self) -> tuple[int, ...]:
        """Of one input, without the sample axis."""
        found = tuple(_example(self.train)[0].shape)
        if not prod(found):
            raise ExperimentError("a ready model takes one tensor with some entries as its input: name a "
                                  "model of yours")
        return found

    def outputs(self) -> int | None:
        """Classes, or components of a target, that a model should give; None when only a pass tells."""
        targets = _all_targets(self.train)
        if targets is None:
            return None
        return prod(targets.shape[1:]) if targets.is_floating_point() else int(targets.max()) + 1


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
    return _splits(call(import_object(spec, "data"), given, what), what)


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
        model = call(found, given, what)
        if not isinstance(model, nn.Module):
            raise ExperimentError(f"{what}: expected a torch module, but it returned {type(model).__name__}")
        return model
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


def some_targets(part: Part) -> Tensor:
    """All targets, or that of the first sample where they are known one by one. Raises ExperimentError."""
    targets = _all_targets(part)
    return call(lambda: torch.as_tensor(_example(part)[1]).unsqueeze(0), {}, "the target of sample 0"
                ) if targets is None else targets


def _splits(found: Any, what: str) -> Splits:
    keys = ("train", "test", "validation")
    if isinstance(found, Splits):
        found = (found.train, found.test, found.validation)
    if isinstance(found, Mapping):
        if not {"train", "test"} <= found.keys() <= set(keys):
            raise ExperimentError(f"{what}: expected the keys train, test and perhaps validation, found "
                                  f"{', '.join(map(str, found))}")
        found = tuple(found.get(key) for key in keys)
    if not isinstance(found, (tuple, list)) or len(found) not in (2, 3):
        raise ExperimentError(f"{what}: expected (train, test) or (train, test, validation), each a torch "
                              f"Dataset or a pair of tensors (inputs, targets); found {kind_of(found)}")
    parts = [None if key == "validation" and part is None else _part(part, f"{what}, {key}")
             for key, part in zip(keys, found, strict=False)]
    return Splits(*parts)  # type: ignore[arg-type]


def _part(part: Any, what: str) -> Part:
    if isinstance(part, (tuple, list)) and len(part) == 2 and all(isinstance(one, (Tensor, np.ndarray))
                                                                  for one in part):
        inputs, targets = (_dense(one, what) for one in part)
        if not inputs.ndim or not targets.ndim or not len(inputs) or len(inputs) != len(targets):
            raise ExperimentError(f"{what}: expected as many targets as inputs, at least one; found shapes "
                                  f"{tuple(inputs.shape)} and {tuple(targets.shape)}")
        for name, values in (("inputs", inputs), ("targets", targets)):
            if values.is_floating_point() and not values.isfinite().all():
                raise ExperimentError(f"{what}: the {name} hold NaN or infinite values; remove such samples")
        return inputs, targets
    if not isinstance(part, Dataset) or not isinstance(part, Sized):
        raise ExperimentError(f"{what}: expected a torch Dataset with a length or a pair of tensors (inputs, "
                              f"targets), found {kind_of(part)}")
    length = call(lambda: len(part), {}, f"{what}, its length")
    if length > _MOST:
        raise ExperimentError(f"{what}: the {type(part).__name__} says that it has {length:,} samples: "
                              f"expected at most {_MOST:,}, which can be put into a random order")
    if not length:
        raise ExperimentError(f"{what}: the {type(part).__name__} is empty")
    _example(part, what)
    return part


def _example(part: Part, what: str = "data") -> tuple[Tensor, Any]:
    """Input and target of the first sample."""
    if isinstance(part, tuple):
        return part[0][0], part[1][0]
    item = call(lambda: part[0], {}, f"{what}, sample 0")
    inputs, target = call(lambda: pair_of(item), {}, f"{what}, sample 0")
    return _as_tensor(inputs), target


def _as_tensor(value: Any) -> Tensor:
    """An input, which may be an array or a number; an empty tensor for several, whose shape only the model
    knows."""
    if isinstance(value, (np.ndarray, np.generic, int, float)):
        return torch.as_tensor(value)
    return value if isinstance(value, Tensor) else torch.empty(0)


def _dense(values: Any, what: str) -> Tensor:
    """As a tensor with all its entries. Raises ExperimentError."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "fiub":
            raise ExperimentError(f"{what}: expected arrays of numbers, found one of {values.dtype}")
        values = torch.from_numpy(np.ascontiguousarray(values))
    if not is_dense(values):
        raise ExperimentError(f"{what}: expected dense tensors of real numbers, found a {values.layout} "
                              f"tensor of {values.dtype}; write .to_dense() or .real")
    return values


def _all_targets(part: Part) -> Tensor | None:
    """None where they are known sample by sample alone."""
    if isinstance(part, TensorDataset) and len(part.tensors) == 2:
        return part.tensors[1]
    return part[1] if isinstance(part, tuple) else None
