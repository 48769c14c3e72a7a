"""What is to be audited, as named by the user: the model with its weights, the loss, and batches drawn from
the data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.audit.sets import SETS, STANDARD
from pontryagin.diagnostics.batches import arguments
from pontryagin.diagnostics.loss import MeanLoss
from pontryagin.errors import NonFiniteError, ProblemError
from pontryagin.problem.admissible.names import set_name
from pontryagin.run.errors import ExperimentError, unknown
from pontryagin.run.objective import OBJECTIVES, Cost, check_classes, class_second, objective_named
from pontryagin.run.option import LAST_SEED, MOST_THREADS, check_numbers, option
from pontryagin.run.parts import READY_DATA, READY_MODELS, build_model, load_cost, load_data
from pontryagin.run.samples import samples_of
from pontryagin.run.splits import Part, Splits, some_targets
from pontryagin.run.user_code import cause, kind_of
from pontryagin.run.weights import load_weights


@dataclass(frozen=True)
class AuditSettings:
    """For every affine stage of a trained network: the Hamiltonian gain still to be had, costates,
    conditioning, and the predicted and true cost of other admissible sets. Writes stages.csv,
    restrictions.csv, summary.json, figures and report.html. The model's file is only read.
    """

    model: str = option(f"{', '.join(READY_MODELS)}, or a class or function of yours that makes a torch "
                        "module, as my.module:Net")
    data: str = option(f"{', '.join(READY_DATA)}, or a function of yours that returns (train, test), as "
                       "my.module:load")
    out: Path = option("folder for the results, new or empty", Path("runs/audit"))
    model_args: dict[str, Any] = option("its arguments, such as --model-args.width 64", {})
    data_args: dict[str, Any] = option("its arguments, such as --data-args.folder FOLDER", {})
    weights: Path | None = option(
        "the model's weights: a state dict saved by torch.save, or a checkpoint that holds one; by default "
        "as the model is made", None)
    loss: str | None = option(f"{', '.join(OBJECTIVES)}, or my.module:function of (output, target); by "
                              "default by the kind of the targets", None)
    part: str = option("of the data: train, test or validation", "train")
    sets: tuple[str, ...] | None = option(
        f"names with commas: {', '.join(SETS)}; by default {', '.join(STANDARD)}", None)
    measure: bool = True
    batches: int = option("how many; errors come from the differences between them", 16, least=3)
    batch_size: int = option("samples of each", 64, least=2)
    seed: int = option("of the samples drawn", 0, least=0, most=LAST_SEED)
    threads: int | None = option("of torch; by default all cores", None, least=1, most=MOST_THREADS)
    overwrite: bool = option("replace the run that is in the folder", False)

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True)
class AuditRequest:
    """All of it, loaded."""

    model: nn.Module
    loss: str | Cost
    batches: list[tuple[Tensor, Tensor]]


def requested(settings: AuditSettings) -> AuditRequest:
    """Load what the settings name. Raises ExperimentError."""
    if wrong := [name for name in settings.sets or () if set_name(name) not in SETS]:
        raise unknown("admissible set", wrong, SETS)
    splits = load_data(settings.data, settings.data_args)
    model = build_model(settings.model, settings.model_args, splits)
    if settings.weights is not None:
        load_weights(model, settings.weights)
    request = AuditRequest(model, _loss(settings.loss, splits),
                           _drawn(_part(splits, settings.part), settings))
    _check_fits(settings.model, request)
    return request


@torch.no_grad()
def _check_fits(name: str, request: AuditRequest) -> None:
    """A pass of the first batch, before any work. Raises ExperimentError."""
    (inputs, targets), model = request.batches[0], request.model
    was_training = model.training
    try:
        with torch.random.fork_rng():
            positional, named = arguments(inputs)
            outputs = model.eval()(*positional, **named)
            if request.loss == "cross-entropy" and isinstance(outputs, Tensor) and outputs.ndim > 1:
                every = torch.cat([one.flatten() for _, one in request.batches])
                check_classes(every, class_second(outputs, targets).shape[1], name)
            if isinstance(outputs, Tensor):  # of others the audit says what it expects
                MeanLoss(request.loss)(outputs, targets)
    except (ProblemError, NonFiniteError, ExperimentError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ExperimentError(f"{name}: network, data and loss do not fit: inputs {kind_of(inputs)}, targets "
                              f"{kind_of(targets)} of {targets.dtype}: {cause(error)}") from error
    finally:
        model.train(was_training)


def _loss(name: str | None, splits: Splits) -> str | Cost:
    if name is None:
        targets = some_targets(splits.train)
        name = "squared-error" if targets.is_floating_point() else "cross-entropy"
    if ":" in name:
        return load_cost(name)
    return name if name == "cross-entropy" else objective_named(name).cost


def _part(splits: Splits, name: str) -> Part:
    parts = {"train": splits.train, "test": splits.test, "validation": splits.validation}
    if name not in parts or parts[name] is None:
        held = [key for key, part in parts.items() if part is not None]
        raise ExperimentError(f"--part {name}: expected {', '.join(held)}")
    return parts[name]  # type: ignore[return-value]


def _drawn(part: Part, settings: AuditSettings) -> list[tuple[Tensor, Tensor]]:
    """Batches of different samples, drawn at random; fewer when there are not so many."""
    held = len(part[1]) if isinstance(part, tuple) else len(part)  # type: ignore[arg-type]
    order = torch.randperm(held, generator=torch.Generator().manual_seed(settings.seed))
    rows = [chunk for chunk in order[:settings.batches * settings.batch_size].split(settings.batch_size)
            if len(chunk) > 1]
    if len(rows) < 3:
        raise ExperimentError(f"--batch-size {settings.batch_size}: expected at least 3 batches, but the "
                              f"{settings.part} part has {held} samples; take smaller batches")
    samples = samples_of(part)
    return [samples.rows(chunk) for chunk in rows]


__all__ = ["OBJECTIVES", "AuditRequest", "AuditSettings", "requested"]
