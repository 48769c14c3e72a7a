"""What Lightning, the Trainer and skorch validate and save are the averages, without a word in the loop; and
what goes on from their checkpoints is the run that was left alone."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optim_builders import loss_of, mlp, vectors
from torch import Tensor, nn

from pontryagin.optim import EMSA, evaluate_averages

X, Y = vectors(dtype=torch.float32)
BATCH = len(X) // 3


def start() -> nn.Module:
    torch.manual_seed(4)
    return mlp(torch.float32)


def alone(steps: int) -> tuple[list[Tensor], list[Tensor]]:
    """Controls and averages of a plain loop over the batches in order."""
    net = start()
    optimizer = EMSA(net)
    for step in range(steps):
        rows = slice(step % 3 * BATCH, (step % 3 + 1) * BATCH)
        optimizer.zero_grad()
        loss = loss_of(net, X[rows], Y[rows])
        loss.backward()
        optimizer.step(loss=loss)
    controls = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer.eval()
    return controls, [parameter.detach().clone() for parameter in net.parameters()]


def assert_equal(found: Iterable[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.detach(), other)


@pytest.mark.filterwarnings("ignore")
def test_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    class Task(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net, self.validated = start(), []

        def training_step(self, batch: list[Tensor]) -> Tensor:
            return loss_of(self.net, *batch)

        def validation_step(self, batch: list[Tensor]) -> None:
            self.net(batch[0])
            self.validated = [parameter.clone() for parameter in self.net.parameters()]

        def configure_optimizers(self) -> EMSA:
            optimizer = EMSA(self.net)
            evaluate_averages(self.net, optimizer)
            return optimizer

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), BATCH)

    def fitted(epochs: int, **options: Any) -> Task:
        kept = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=3,
                                                               save_top_k=-1)
        task = Task()
        lightning.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, callbacks=[kept],
                          enable_progress_bar=False, enable_model_summary=False).fit(
            task, loader, loader, **options)
        return task

    first = fitted(2)
    assert_equal(first.validated, alone(6)[1])
    for steps in (3, 6):
        saved = torch.load(tmp_path / f"step={steps}.ckpt", weights_only=False)
        assert_equal(saved["state_dict"].values(), alone(steps)[1])
    assert_equal(fitted(3, ckpt_path=tmp_path / "step=6.ckpt").validated, alone(9)[1])


@pytest.mark.filterwarnings("ignore")
def test_lightning_cli() -> None:
    """OptimizerCallable, called with the module."""
    pytest.importorskip("typeshed_client")  # of jsonargparse[signatures], which LightningCLI needs
    lightning = pytest.importorskip("lightning")
    from lightning.pytorch.cli import LightningCLI, OptimizerCallable

    class Task(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, optimizer: OptimizerCallable = EMSA) -> None:
            super().__init__()
            self.net, self.optimizer = start(), optimizer

        def training_step(self, batch: list[Tensor]) -> Tensor:
            return loss_of(self.net, *batch)

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), BATCH)

        def configure_optimizers(self) -> EMSA:
            return self.optimizer(self)

    quiet = ["accelerator=cpu", "logger=false", "enable_checkpointing=false", "enable_progress_bar=false",
             "enable_model_summary=false"]
    run = LightningCLI(Task, save_config_callback=None, args=[
        "fit", "--trainer.max_epochs=2", *(f"--trainer.{one}" for one in quiet),
        "--model.optimizer=pontryagin.optim.EMSA", "--model.optimizer.lr=0.03"])
    assert_equal(run.model.net.parameters(), alone(6)[0])


def test_trainer(tmp_path: Path) -> None:
    """Checkpoints without an evaluation."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from safetensors.torch import load_file

    class Task(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = start()

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"loss": loss_of(self.net, x, labels)}

    class InOrder(transformers.Trainer):  # type: ignore[misc, name-defined]
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    class Averages(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            evaluate_averages(named["model"], named["optimizer"])

    settings = transformers.TrainingArguments(
        str(tmp_path), max_steps=6, per_device_train_batch_size=BATCH, report_to=[], save_steps=4,
        use_cpu=True, disable_tqdm=True, logging_strategy="no", max_grad_norm=0, lr_scheduler_type="constant")
    data = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    for options in ({}, {"resume_from_checkpoint": str(tmp_path / "checkpoint-4")}):
        model = Task()
        trainer = InOrder(model, settings, train_dataset=data, callbacks=[Averages()],
                          optimizer_cls_and_kwargs=(EMSA, {"model": model, "lr": 0.03}))
        trainer.train(**options)
        saved = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
        assert_equal([saved[f"net.{name}"] for name, _ in start().named_parameters()], alone(4)[1])
        trainer.optimizer.train()
        assert_equal(model.net.parameters(), alone(6)[0])


def test_skorch(tmp_path: Path) -> None:
    skorch = pytest.importorskip("skorch")

    class Net(skorch.NeuralNetClassifier):  # type: ignore[misc, name-defined]
        def initialize_optimizer(self, *_: Any, **__: Any) -> "Net":
            self.optimizer_ = EMSA(self.module_, lr=self.lr)
            evaluate_averages(self.module_, self.optimizer_)
            return self

        def train_step_single(self, batch: Any, **options: Any) -> Any:
            self.trained = [parameter.detach().clone() for parameter in self.module_.parameters()]
            return super().train_step_single(batch, **options)

    net = Net(start, criterion=nn.CrossEntropyLoss, lr=0.03, max_epochs=2, batch_size=BATCH, train_split=None,
              verbose=0, iterator_train__shuffle=False)
    net.fit(np.asarray(X), np.asarray(Y))
    assert_equal(net.trained, alone(5)[0])
    net.predict(np.asarray(X))
    assert_equal(net.module_.parameters(), alone(6)[1])
    net.save_params(f_params=tmp_path / "net.pt")
    assert_equal(torch.load(tmp_path / "net.pt").values(), alone(6)[1])
