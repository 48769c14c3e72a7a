"""What a training command takes beside method and rate: each against its plain definition, and all of it
stopped and resumed bitwise."""

import csv
import os
import pickle
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F  # noqa: N812
from tasks import classification, regression
from torch import Tensor, nn
from torch.utils.data import Dataset

from pontryagin.optim.snapshot import seed_generators
from pontryagin.run import checkpoint
from pontryagin.run.callbacks import ProgressDisplay
from pontryagin.run.class_weights import Weighted, weighted
from pontryagin.run.errors import ExperimentError
from pontryagin.run.evaluation import Point, Scores, evaluate
from pontryagin.run.methods import METHODS
from pontryagin.run.metric import Metric
from pontryagin.run.objective import OBJECTIVES, Objective
from pontryagin.run.parts import task_from
from pontryagin.run.race import Run
from pontryagin.run.reading import ReadAhead, _Requests, batches
from pontryagin.run.samples import DatasetSamples, TensorSamples, hold_out, samples_of
from pontryagin.run.settings import RunSettings
from pontryagin.run.task import Task, run_of, scheduled, warm_up_of
from pontryagin.run.training import Outcome, run_training
from pontryagin.run.tuning import score_training


class Transformed(Dataset[Any]):
    """Draws from two generators for every item; of Python's the checks of types in tests draw too."""

    def __init__(self, samples: TensorSamples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> Any:
        noise = torch.randn(6) + float(np.random.rand())
        return self.samples.inputs[row] + 0.1 * noise, int(self.samples.targets[row])


def stacked(items: list[Any]) -> dict[str, Any]:
    return {"x": torch.stack([x for x, _ in items]), "labels": torch.tensor([y for _, y in items])}


def share(output: Tensor, target: Tensor) -> Tensor:
    return (output.argmax(1) == target).double().mean()


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pontryagin.run.reports.training.write_report", lambda out, _: out / "report.html")


def read_by_others() -> Task:
    task = classification()
    assert isinstance(task.train, TensorSamples)
    train, held = hold_out(DatasetSamples(Transformed(task.train)), 0.2)
    return replace(task, train=train, validation=held, metric=Metric("share", share))


def trained(task: Task, out: Path, display: ProgressDisplay | None = None, **settings: Any) -> Outcome:
    wanted = RunSettings(out=out, **({"epochs": 3, "batch_size": 20} | settings))
    return run_training(task, wanted, "a command", display or ProgressDisplay())


def table(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return [{name: cell for name, cell in row.items() if name != "seconds"}
                for row in csv.DictReader(file)]


class Stopping(ProgressDisplay):
    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0

    def after(self, run: Run, point: Point) -> None:
        self.seen += 1
        if self.seen == self.at:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pontryagin.run.reports.training.write_report", lambda out, _: out / "report.html")
        return trained(read_by_others(), tmp_path_factory.mktemp("whole") / "run", **RECIPE).out


RECIPE: dict[str, Any] = {"methods": ("emsa", "adam"), "num_workers": 2, "clip_norm": 0.1, "warm_up": 0.2,
                          "autocast": True, "patience": 3, "rates": {"adam": 0.5}}


@pytest.mark.parametrize("at", [2, 15])
def test_all_of_it_goes_on_bitwise(at: int, tmp_path: Path, whole: Path) -> None:
    assert trained(read_by_others(), tmp_path / "run", Stopping(at), **RECIPE).interrupted
    out = trained(read_by_others(), tmp_path / "run", resume=True, **RECIPE).out
    assert table(out) == table(whole)
    for path in (whole / "models").iterdir():
        one, other = (checkpoint.read(folder / "models" / path.name)["model"] for folder in (out, whole))
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_patience_ends_a_run_at_the_evaluation_that_is_one_too_many(whole: Path) -> None:
    ends = {}
    for method in RECIPE["methods"]:
        found = [float(row["validation_metric"]) for row in table(whole)
                 if row["method"] == method and row["validation_metric"]]
        waited = [len(found[:k + 1]) - 1 - int(np.argmax(found[:k + 1])) for k in range(len(found))]
        assert max(waited[:-1]) < 3
        ends[method] = waited[-1]
    assert 3 in ends.values(), "one of them was stopped"


def test_the_number_of_processes_that_read_changes_nothing(tmp_path: Path) -> None:
    one, three = (trained(read_by_others(), tmp_path / f"{number}", iterations=3, methods=("adam",),
                          num_workers=number).out for number in (1, 3))
    assert table(one) == table(three)


def test_nothing_of_a_batch_is_left_with_who_read_it() -> None:
    """Tensors between processes are handles, which a stopped run would ask of a process that has ended."""
    samples = read_by_others().train
    sent = _Requests(samples, (0,))[3, [0, 2]]
    assert isinstance(sent, bytes)
    seed_generators(int(np.random.SeedSequence([0, 3]).generate_state(1)[0]))
    wanted = samples.read(torch.tensor([0, 2]))
    assert all(torch.equal(one, other) for one, other in zip(pickle.loads(sent), wanted, strict=True))


def test_processes_that_are_killed_are_replaced() -> None:
    samples = replace(read_by_others().train, workers=1)
    read = batches(samples, lambda k: torch.arange(4) + k, (0, 0), 60)
    expected = [read(k) for k in range(60)]
    again = batches(samples, lambda k: torch.arange(4) + k, (0, 0), 60)
    assert isinstance(again, ReadAhead)
    for k, batch in enumerate(expected):
        if k in (0, 30):
            first = again(k)
            for worker in again._found._workers:  # type: ignore[attr-defined]
                os.kill(worker.pid, signal.SIGKILL)
                worker.join()
        else:
            first = again(k)
        assert torch.equal(first[0], batch[0])


def test_what_a_process_meets_is_one_line() -> None:
    class Broken(Transformed):
        def __getitem__(self, row: int) -> Any:
            if row == 3:
                raise ValueError("a bad sample")
            return super().__getitem__(row)

    class Ending(Transformed):
        def __getitem__(self, row: int) -> Any:
            os._exit(3)

    inner = classification().train
    assert isinstance(inner, TensorSamples)
    for kind, told in ((Broken, "Broken, sample 3: ValueError: a bad sample"),
                       (Ending, "--num-workers: the processes that read samples have ended 3 times")):
        read = batches(DatasetSamples(kind(inner), workers=1), lambda k: torch.arange(4), (0,), 5)
        with pytest.raises(ExperimentError, match=told) as error:
            read(0)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("warm_up", [0.0, 0.25, 3.0])
def test_the_rate_rises_then_follows_the_schedule(warm_up: float) -> None:
    task = regression()
    settings = RunSettings(warm_up=warm_up, iterations=12, batch_size=20, schedule="cosine")
    factor = scheduled(settings, 12, warm_up_of(task, settings))
    found = [factor(k / 12) for k in range(12)]
    rising = [] if not warm_up else [1 / 4, 2 / 4, 3 / 4]
    rest = 12 - len(rising)
    assert found == pytest.approx([*rising, *((1 + np.cos(np.pi * k / rest)) / 2 for k in range(rest))])


def test_a_short_run_that_tunes_warms_up_in_its_own_measure() -> None:
    settings = RunSettings(warm_up=100.0, iterations=200, batch_size=20, tune=10, methods=("adam",))
    run = run_of(regression(), settings, METHODS["adam"], 0, 1e-3)
    assert run._factor(100 / 200) == 1
    assert score_training(regression(), settings, METHODS["adam"], 1e-3) is not None


@pytest.mark.parametrize("autocast", [False, True])
def test_a_step_is_that_of_a_loop_by_hand(autocast: bool) -> None:
    task = classification()
    settings = RunSettings(methods=("sgd",), batch_size=20, clip_norm=1e-2, autocast=autocast,
                           schedule="constant")
    run = run_of(task, settings, METHODS["sgd"], 0, 0.1)
    model = run.trainer.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with run.generators():
        record = run.iterate()
    other = run_of(task, settings, METHODS["sgd"], 0, 0.1)
    by_hand = other.trainer.model
    assert all(torch.equal(value, before[name]) for name, value in by_hand.state_dict().items())
    with other.generators():
        inputs, targets = other._workload.batch(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = by_hand(inputs)
        loss = F.cross_entropy(output.float(), targets)
    loss.backward()
    norm = sum(p.grad.square().sum() for p in by_hand.parameters() if p.grad is not None) ** 0.5
    assert norm > 1e-2
    assert record is not None
    assert record.loss == pytest.approx(loss.item(), rel=1e-6)
    for name, parameter in by_hand.named_parameters():
        expected = before[name] - 0.1 * parameter.grad * (1e-2 / norm)
        assert torch.allclose(dict(model.named_parameters())[name], expected, atol=1e-7)
    assert output.dtype == (torch.bfloat16 if autocast else torch.float32)


def test_weighted_costs_are_torchs_times_the_weights_of_the_batch() -> None:
    torch.manual_seed(0)
    output, target = torch.randn(50, 3, dtype=torch.float64), torch.randint(3, (50,))
    target[:5] = -100
    weights = (0.5, 2.0, 3.0)
    found = weighted(OBJECTIVES["cross-entropy"], weights, TensorSamples(output, target)).mean(output, target)
    taken = torch.tensor(weights, dtype=torch.float64)[target[5:]]
    torchs = F.cross_entropy(output, target, torch.tensor(weights, dtype=torch.float64))
    assert found.item() == pytest.approx((torchs * taken.mean()).item(), rel=1e-12)


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int32])
def test_weights_of_classes_in_every_kind_of_whole_numbers(kind: torch.dtype) -> None:
    """A mask is no index, and neither is a byte."""
    target = torch.tensor([0, 1, 1, 1], dtype=kind)
    found = weighted(OBJECTIVES["squared-hinge"], "balanced", TensorSamples(torch.zeros(4, 1), target)).cost
    assert isinstance(found, Weighted)
    assert found.weights == pytest.approx((2.0, 2 / 3))
    costs = Weighted(lambda output, target: torch.ones(4), (3.0, 5.0))(torch.zeros(4, 2), target)
    assert costs.tolist() == [3, 5, 5, 5]


def test_balanced_weights_let_every_class_count_alike() -> None:
    target = torch.tensor([0] * 6 + [1] * 3 + [2] + [-100] * 4)
    found = weighted(OBJECTIVES["cross-entropy"], "balanced", TensorSamples(torch.zeros(14, 1), target)).cost
    sums = [found(torch.zeros(14, 3), target)[target == k].sum().item() for k in range(3)]
    assert sums == pytest.approx([10 / 3 * np.log(3)] * 3)


@pytest.mark.parametrize(("objective", "weights", "told"), [
    ("squared-error", "balanced", "tells no classes"), ("cross-entropy", (1.0, -1.0, 1.0), "numbers >= 0"),
    ("cross-entropy", (0.0, 0.0, 0.0), "one at least above 0"),
    ("cross-entropy", (1.0, 2.0), "a weight for each of the 3 outputs, found 2")])
def test_weights_that_do_not_fit(objective: str, weights: Any, told: str) -> None:
    task = classification()
    with pytest.raises(ExperimentError, match=told):
        replace(task, objective=weighted(OBJECTIVES[objective], weights, task.train)).check()


def test_a_mean_cannot_be_weighted() -> None:
    task = classification()
    mean = Objective("m:mean", F.cross_entropy, True)
    with pytest.raises(ExperimentError, match="one number a target"):
        replace(task, objective=weighted(mean, (1.0, 2.0, 3.0), task.train)).check()


def test_what_is_held_out_is_the_rest_in_tensors_and_data_sets_alike() -> None:
    whole = TensorSamples(torch.arange(40.0).unsqueeze(1), torch.arange(40))
    train, held = hold_out(whole, 0.25)
    assert (len(train), len(held)) == (30, 10)
    seen = [samples.rows(torch.arange(len(samples)))[1] for samples in (train, held)]
    assert torch.cat(seen).sort().values.tolist() == list(range(40))
    data = hold_out(samples_of(torch.utils.data.TensorDataset(whole.inputs, whole.targets), default), 0.25)
    assert torch.equal(data[1].rows(torch.arange(10))[1], seen[1])
    for wrong in (0.0, 1.0, 0.001, -1.0, 7.0):
        with pytest.raises(ExperimentError, match="--validation"):
            hold_out(whole, wrong)


def default(items: list[Any]) -> Any:
    return torch.utils.data.default_collate(items)


@pytest.mark.parametrize(("collate", "told"), [
    (lambda items: None, "found NoneType"), (lambda items: (1, 2), "a tensor of as many targets"),
    (lambda items: items[7], "IndexError"),
    (lambda items: (torch.zeros(1), torch.zeros(3)), "of 2 samples of"),
    (lambda items: (torch.zeros(2, 6).to_sparse(), torch.zeros(2)), "dense tensors")])
def test_a_collate_function_that_is_wrong_is_named(collate: Any, told: str) -> None:
    inner = classification().train
    assert isinstance(inner, TensorSamples)
    with pytest.raises(ExperimentError, match=told):
        DatasetSamples(Transformed(inner), collate=collate).rows(torch.arange(2))


def test_a_collate_function_of_ones_own() -> None:
    inner = classification().train
    assert isinstance(inner, TensorSamples)
    inputs, targets = DatasetSamples(Transformed(inner), dtype=torch.float64,
                                     collate=stacked).rows(torch.arange(3))
    assert inputs["x"].dtype == torch.float64
    assert torch.equal(targets, inner.targets[:3])
    with pytest.raises(ExperimentError, match="--collate: these data are tensors"):
        samples_of((inner.inputs, inner.targets), stacked)


def test_a_metric_sees_all_samples_at_once() -> None:
    task, seen = classification(), []

    def noted(output: Tensor, target: Tensor) -> float:
        seen.append((tuple(output.shape), tuple(target.shape)))
        return 2.5

    scores = evaluate(nn.Linear(6, 3), TensorSamples(torch.randn(250, 6), torch.randint(3, (250,))),
                      torch.arange(250), task.objective, Metric("m:noted", noted))
    assert scores.metric == 2.5
    assert seen == [((250, 3), (250,))]
    for wrong in (lambda *_: None, lambda *_: torch.zeros(2), lambda *_: [], lambda *_: 1 / 0):
        with pytest.raises(ExperimentError, match="metric 'm:f'"):
            replace(task, metric=Metric("m:f", wrong)).check()


def test_a_network_begins_from_a_file(tmp_path: Path) -> None:
    made = {"model_args": {"depth": 1, "width": 4}}
    first = trained(task_from("mlp", "digits", **made), tmp_path / "first", iterations=2)
    model = tmp_path / "first" / "models" / "emsa-seed0.pt"
    assert not first.interrupted
    safetensors.torch.save_file(checkpoint.read(model)["model"], tmp_path / "model.safetensors")
    kept = checkpoint.read(model)["model"]
    for path in (model, tmp_path / "model.safetensors"):
        built = task_from("mlp", "digits", weights=path, **made).build()
        assert all(torch.equal(value, kept[name]) for name, value in built.state_dict().items())
    with pytest.raises(ExperimentError, match="does not fit the model"):
        task_from("mlp", "digits", weights=model)
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    (tmp_path / "cut.safetensors").write_bytes(content[:-9])
    with pytest.raises(ExperimentError, match="expected a whole safetensors file"):
        task_from("mlp", "digits", weights=tmp_path / "cut.safetensors", **made)
    with pytest.raises(ExperimentError, match="is not the file any more from which the run began"):
        task_from("mlp", "digits", weights=model, weights_sha256="0" * 64, **made)


@pytest.mark.parametrize(("settings", "told"), [
    ({"methods": ("emsa",), "clip_norm": 1.0}, "--clip-norm: has no effect on emsa"),
    ({"methods": ("emsa-paper",), "autocast": True}, "--autocast: has no effect on emsa-paper"),
    ({"methods": ("li-hao",), "warm_up": 3.0}, "--warm-up: has no effect on li-hao"),
    ({"methods": ("li-hao", "emsa-paper"), "schedule": "cosine"}, "--schedule: has no effect on"),
    ({"autocast": True, "dtype": "float64"}, "--autocast: expected --dtype float32"),
    ({"warm_up": 2.5}, "--warm-up: expected a number of iterations"),
    ({"warm_up": 15.0}, "--warm-up 15: the run has 15 iterations"),
    ({"num_workers": 2}, "--num-workers: these data are tensors in memory")])
def test_what_has_no_effect_is_refused(settings: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=told):
        trained(classification(), tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_of_several_methods_it_is_said(tmp_path: Path) -> None:
    class Saying(ProgressDisplay):
        said: list[str] = []  # noqa: RUF012

        def say(self, text: str) -> None:
            self.said.append(text)

    trained(classification(), tmp_path / "run", Saying(), methods=("emsa", "adam"), clip_norm=1.0,
            iterations=1)
    assert "--clip-norm has no effect on emsa." in Saying.said


def test_scores_of_a_point_are_those_of_validation_where_there_is_such_a_part() -> None:
    test, held = Scores(1.0, None), Scores(2.0, None)
    point = Point(0, 0.0, 0, 0.0, None, test, test)
    assert point.held is test
    assert replace(point, validation=held).held is held
