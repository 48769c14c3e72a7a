"""A trained model, loaded safely and evaluated."""

import csv
import io
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pontryagin.run import checkpoint
from pontryagin.run.checkpoint import CheckpointError
from pontryagin.run.errors import ExperimentError, unknown
from pontryagin.run.evaluation import chunk_size, evaluate, left_words
from pontryagin.run.files import check_target, write_text
from pontryagin.run.objective import class_second
from pontryagin.run.option import option
from pontryagin.run.parts import OWN_CODE, from_description
from pontryagin.run.reading import in_turn
from pontryagin.run.samples import Samples
from pontryagin.run.settings import DTYPES, usable_device
from pontryagin.run.task import Task
from pontryagin.run.trainer import output_of
from pontryagin.run.weights import checked_state, put_into

PARTS = ("train", "test", "validation")


@dataclass(frozen=True)
class Prediction:
    """Load a trained model or a checkpoint, without executing anything that it holds, and evaluate it: loss,
    accuracy, and the predictions as a table if asked.
    """

    path: Path = option("the folder of a run, a file of its models, or its checkpoint.pt")
    method: str | None = option("which, if the folder has several", None)
    seed: int | None = option("which, if the folder has several", None)
    split: str = option("train, test or validation, if the run had such a part", "test")
    device: str = option("cpu, cuda, ...", "cpu")
    predictions: Path | None = option("a csv file: row, target, prediction, confidence", None)
    overwrite: bool = option("replace that file", False)
    model: str | None = option("your own model's class again", None)
    data: str | None = option("other data, or your own function again", None)
    data_args: dict[str, Any] | None = option("its arguments", None)
    loss: str | None = option("your own loss again", None)
    collate: str | None = option("your own function again", None)
    metric: str | None = option("yours, of (outputs, targets); by default none", None)

    @property
    def named(self) -> dict[str, str]:
        """What the user has named of the task."""
        return {name: spec for name in OWN_CODE if (spec := getattr(self, name)) is not None}


def predict(wanted: Prediction) -> list[str]:
    """Lines that say what was evaluated and how it did. Raises ExperimentError."""
    if wanted.split not in PARTS:
        raise unknown("--split", [wanted.split], PARTS)
    if wanted.predictions is not None:
        check_target("--predictions", wanted.predictions, wanted.overwrite)
    usable_device(wanted.device)
    path, saved = _model(wanted)
    task = from_description(_described(path, saved, wanted), wanted.named)
    task = task.to(torch.device(wanted.device), DTYPES[saved["dtype"]])
    samples = task.parts().get(wanted.split)
    if samples is None:
        raise ExperimentError("--split validation: the run had no such part: expected train or test")
    model = task.build()
    put_into(model, checked_state(path, saved["model"]), path)
    rows = torch.arange(len(samples))
    scores = evaluate(model, samples, rows, task.objective, task.metric)
    accuracy = "" if scores.accuracy is None else f", accuracy {100 * scores.accuracy:.2f} %"
    accuracy += "" if scores.metric is None else f", metric {scores.metric:.6g}"
    lines = [f"{path}: {task.name}, {saved['method']}, seed {saved['seed']}, {saved['iteration']:,} "
             "iterations",
             f"{wanted.split}: loss {scores.loss:.6g}{accuracy}, {len(samples):,} samples"]
    lines += filter(None, [left_words(wanted.split, scores.ignored), _otherwise(saved, wanted, scores.loss)])
    if wanted.predictions is not None:
        write_text(wanted.predictions, _table(task, model, samples, rows))
        lines.append(f"Predictions: {wanted.predictions}")
    return lines


def _model(wanted: Prediction) -> tuple[Path, dict[str, Any]]:
    """The file and the content of a model's state with what it was trained as."""
    path = wanted.path
    if path.is_dir():
        models = sorted((path / "models").glob("*.pt"))
        chosen = [model for model in models
                  if wanted.method in (None, model.stem.rpartition("-seed")[0])
                  and (wanted.seed is None or model.stem.endswith(f"-seed{wanted.seed}"))]
        if len(chosen) > 1:
            raise ExperimentError(f"{path} holds several models: name one by --method and --seed, or by its "
                                  f"file: {', '.join(model.name for model in chosen)}")
        if models and not chosen:
            raise ExperimentError(f"{path} has no model of this method and seed: expected one of "
                                  f"{', '.join(model.stem for model in models)}")
        path = chosen[0] if chosen else path / "checkpoint.pt"
    last = checkpoint.read_last(path, wanted.device) if path.name == "checkpoint.pt" else None
    saved = last[0] if last else checkpoint.read(path, wanted.device)
    if "runs" in saved:
        checkpoint.check_kinds(path, saved, {"runs": list, "task": dict, "settings": dict})
        saved = _one_run(path, saved, wanted)
    checkpoint.check_kinds(path, saved,
                           {"model": dict, "task": dict, "dtype": str, "method": str, "seed": int,
                                         "iteration": int})
    if saved["dtype"] not in DTYPES:
        raise CheckpointError(f"{path}: expected the dtype {' or '.join(DTYPES)}, found {saved['dtype']!r}")
    return path, saved


def _one_run(path: Path, saved: dict[str, Any], wanted: Prediction) -> dict[str, Any]:
    """Of a run that is going on."""
    for run in saved["runs"]:
        checkpoint.check_kinds(path, run if isinstance(run, dict) else {}, {"method": str, "seed": int})
    runs = [run for run in saved["runs"] if wanted.method in (None, run["method"])
            and wanted.seed in (None, run["seed"])]
    if len(runs) != 1:
        found = ", ".join(f"--method {run['method']} --seed {run['seed']}" for run in saved["runs"])
        raise ExperimentError(f"{path} holds {len(saved['runs'])} models: name one "
                              f"({found or 'the run has not begun'})")
    return {**runs[0], "task": saved["task"], "dtype": saved["settings"].get("dtype")}


def _otherwise(saved: dict[str, Any], wanted: Prediction, loss: float) -> str:
    """That the run had another test loss where it is asked for the same, beyond what rounding does."""
    kept = saved.get("scores")
    then = kept.get("test_loss") if isinstance(kept, dict) else None
    alike = all(saved["task"].get(name) == spec for name, spec in wanted.named.items() if name != "metric")
    asked = alike and wanted.split == "test" and wanted.data_args is None
    if not (asked and isinstance(then, float)) or isclose(loss, then, rel_tol=1e-3, abs_tol=1e-6):
        return ""
    return (f"Not as it was: the run ended at a test loss of {then:.6g}. The data, or the code of data, "
            "model or loss, are others now, unless samples are drawn anew at every read.")


def _described(path: Path, saved: dict[str, Any], wanted: Prediction) -> dict[str, Any]:
    """The task of the file, on the user's data if these are named."""
    described, given = dict(saved["task"]), wanted.named
    if given.get("model", described.get("model")) != described.get("model"):
        raise ExperimentError(f"{path}: was trained with the model {described.get('model')}, --model names "
                              f"{given['model']}")
    if given.get("data", described.get("data")) != described.get("data"):
        described |= {"data_args": {}, "collate": None, "validation": None}
        if described.get("class_weights") == "balanced":  # of the data that it was trained on
            described["class_weights"] = None
    described |= {"weights": None, "weights_sha256": None, "metric": None}
    described |= {name: given[name] for name in OWN_CODE[1:] if name in given}
    return described if wanted.data_args is None else described | {"data_args": dict(wanted.data_args)}


@torch.no_grad()
def _table(task: Task, model: torch.nn.Module, samples: Samples, rows: Tensor) -> str:
    """Classification: row, target, prediction, confidence (the softmax of the predicted class). Else: row and
    every component of target and prediction."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    model.eval()
    chunks = rows.split(chunk_size(model))
    for chunk, (inputs, targets) in zip(chunks, in_turn(samples, chunks), strict=True):
        output = output_of(model, inputs).double().cpu()
        if task.objective.classifies:
            output = class_second(output, targets)
            columns = {"target": targets, "prediction": output.argmax(1),
                       "confidence": output.softmax(1).amax(1)}
        else:
            known, found = (values.reshape(len(chunk), -1).T for values in (targets, output))
            columns = {f"target_{n}": values for n, values in enumerate(known)}
            columns |= {f"prediction_{n}": values for n, values in enumerate(found)}
        if not int(chunk[0]):
            table.writerow(["row", *columns])
        table.writerows(zip(chunk.tolist(), *(values.tolist() for values in columns.values()), strict=True))
    return text.getvalue()
