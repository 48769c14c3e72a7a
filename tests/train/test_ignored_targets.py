"""Class indices of -100 leave losses and accuracies, of batches and of means over batches."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.data import Dataset

from pontryagin.run.callbacks import ProgressDisplay
from pontryagin.run.errors import ExperimentError
from pontryagin.run.evaluation import evaluate
from pontryagin.run.methods import METHODS
from pontryagin.run.methods.paper_emsa import PaperEMSA
from pontryagin.run.objective import OBJECTIVES, Objective, squared_hinge
from pontryagin.run.samples import DatasetSamples, TensorSamples
from pontryagin.run.settings import RunSettings
from pontryagin.run.task import Task
from pontryagin.run.training import run_training


def of_entries(output: Tensor, target: Tensor) -> Tensor:
    """A user's cost that knows nothing of ignored targets."""
    return -output.log_softmax(1).gather(1, target.clamp_min(0).unsqueeze(1)).squeeze(1)


def torchs_mean(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target)


KINDS = {"cross-entropy": OBJECTIVES["cross-entropy"], "entries": Objective("m:entries", of_entries, True),
         "mean": Objective("m:mean", torchs_mean, True)}
SHAPES = {"classes": (), "sequences": (5,), "images": (3, 2)}


def case(shape: tuple[int, ...], samples: int = 230, ignored: float = 0.4) -> tuple[Tensor, Tensor]:
    torch.manual_seed(4)
    target = torch.randint(4, (samples, *shape))
    target[torch.rand(target.shape) < ignored] = -100
    return torch.randn(samples, 4, *shape, dtype=torch.float64), target


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("objective", KINDS.values(), ids=KINDS)
def test_the_mean_is_torchs(objective: Objective, shape: tuple[int, ...]) -> None:
    output, target = case(shape)
    output.requires_grad_()
    expected = F.cross_entropy(output, target)
    assert objective.mean(output, target).item() == pytest.approx(expected.item(), rel=1e-12)
    found, = torch.autograd.grad(objective.mean(output, target), output)
    assert torch.allclose(found, torch.autograd.grad(expected, output)[0], atol=1e-15)
    assert objective.counted(target).item() == pytest.approx((target >= 0).double().mean().item()
                                                             * len(target))


@pytest.mark.parametrize("objective", [*KINDS.values(), OBJECTIVES["squared-hinge"]],
                         ids=[*KINDS, "squared-hinge"])
def test_nothing_but_ignored_targets_costs_nothing(objective: Objective) -> None:
    output = torch.randn(3, 4, requires_grad=True)
    target = torch.full((3,), -100)
    value = objective.mean(output, target)
    value.backward()
    assert value.item() == 0
    assert output.grad is not None
    assert not output.grad.any()
    assert objective.counted(target).item() == 0


def test_squared_hinge_of_the_others() -> None:
    output, target = case(())
    kept = target >= 0
    expected = squared_hinge(output[kept], target[kept]).mean().item()
    assert OBJECTIVES["squared-hinge"].mean(output, target).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("objective", KINDS.values(), ids=KINDS)
def test_evaluation_over_chunks_is_that_of_all_at_once(objective: Objective, shape: tuple[int, ...]) -> None:
    """Chunks have different numbers of targets that count, the second has none at all."""
    output, target = case(shape)
    target[100:200] = -100
    target[:100, ...] = torch.where(torch.rand(target[:100].shape) < 0.8, -100, target[:100])
    model = nn.Conv1d(1, 1, 1).double()  # an identity that has a parameter
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)
    net = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (1, -1)), model, nn.Flatten(),
                        nn.Unflatten(1, output.shape[1:]))
    scores = evaluate(net, TensorSamples(output, target), torch.arange(len(target)), objective)
    kept = target >= 0
    assert scores.loss == pytest.approx(F.cross_entropy(output, target).item(), rel=1e-12)
    assert scores.accuracy == pytest.approx((output.argmax(1) == target)[kept].double().mean().item(),
                                            rel=1e-12)


@pytest.mark.parametrize("reading", [True, False], ids=["a Dataset", "tensors"])
def test_that_targets_do_not_count_is_said_once(reading: bool, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    class Saying(ProgressDisplay):
        def __init__(self) -> None:
            self.said: list[str] = []

        def say(self, text: str) -> None:
            self.said.append(text)

    monkeypatch.setattr("pontryagin.run.reports.training.write_report", lambda out, _: out / "report.html")
    target = torch.tensor([0, 1, 2, -100] * 10)
    samples = TensorSamples(torch.randn(40, 3), target)
    whole = TensorSamples(samples.inputs, target.clamp_min(0))
    task = Task("small", lambda: nn.Linear(3, 3), DatasetSamples(Pairs(samples)) if reading else samples,
                whole, OBJECTIVES["cross-entropy"], {})
    display = Saying()
    run_training(task, RunSettings(out=tmp_path / "run", methods=("adam", "sgd"), seeds=(0, 1), iterations=2,
                                   batch_size=8), "a command", display)
    assert [text for text in display.said if "-100" in text] == [
        "train: 25 % of the targets are -100 and do not count"]


class Pairs(Dataset[Any]):
    def __init__(self, samples: TensorSamples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> Any:
        return self.samples.inputs[row], self.samples.targets[row]


def ones() -> nn.Module:
    model = nn.Linear(3, 3, bias=False).double()
    nn.init.ones_(model.weight)
    return model


@pytest.mark.parametrize("left", [0, 3, 4])
def test_the_mean_of_processes_is_that_of_all_targets_that_count(left: int,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, played one after the other: the first has `left` of four targets ignored."""
    torch.manual_seed(1)
    inputs, target = torch.randn(8, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2, 2, 1])
    target[:left] = -100
    gradients = []
    for rank in (0, 1):
        model = ones()
        trainer = METHODS["sgd"].trainer(model, OBJECTIVES["cross-entropy"], 0.0)
        counts = torch.tensor(float((target >= 0).sum()), dtype=torch.float64)
        other = SimpleNamespace(size=2, rank=rank, sum=lambda value, counts=counts: counts)
        monkeypatch.setattr("pontryagin.run.trainer.present", lambda other=other: other)
        trainer.step((inputs[4 * rank:4 * rank + 4], target[4 * rank:4 * rank + 4]))
        gradients.append(model.weight.grad)
    whole = ones()
    expected, = torch.autograd.grad(F.cross_entropy(whole(inputs), target), whole.weight)
    assert torch.allclose((gradients[0] + gradients[1]) / 2, expected, atol=1e-12)


def test_nothing_to_evaluate_is_said() -> None:
    samples = TensorSamples(torch.randn(4, 3), torch.full((4,), -100))
    with pytest.raises(ExperimentError, match="all targets of the 4 evaluated samples are -100"):
        evaluate(nn.Linear(3, 2), samples, torch.arange(4), OBJECTIVES["cross-entropy"])


@pytest.mark.parametrize("name", ["squared-error", "binary-cross-entropy"])
def test_other_targets_are_numbers(name: str) -> None:
    """-100 is a value like others where nothing is classified."""
    one = OBJECTIVES[name]
    output, target = torch.randn(4, 2, dtype=torch.float64), torch.full((4, 2), -100.0, dtype=torch.float64)
    assert one.mean(output, target).item() == pytest.approx(one.cost(output, target).mean().item())
    assert one.counted(target).item() == one.counted(target.long()).item() == 4


def test_the_papers_method_leaves_ignored_samples_out() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    inputs, target = torch.randn(8, 3, dtype=torch.float64), torch.tensor([0, -100, 2, 3, -100, 1, 2, -100])
    kept = target >= 0

    def after(batch: tuple[Tensor, Tensor]) -> tuple[float, list[Tensor]]:
        trained = copy.deepcopy(model)
        record = PaperEMSA(trained, OBJECTIVES["cross-entropy"], 0.1, 2).step(batch)
        return record.loss, list(trained.parameters())

    loss, parameters = after((inputs, target))
    expected, others = after((inputs[kept], target[kept]))
    assert loss == expected
    assert all(torch.equal(one, other) for one, other in zip(parameters, others, strict=True))
    loss, parameters = after((inputs, torch.full((8,), -100)))
    assert loss == 0
    assert all(torch.equal(one, other) for one, other in zip(parameters, model.parameters(), strict=True))
