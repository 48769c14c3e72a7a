"""Run by torchrun: EMSA in Accelerate, the Trainer and Lightning where these shard the model by FSDP2, beside
a plain loop of one process; averages evaluated and saved by themselves."""

import os
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from owners_program import entire
from torch import Tensor, distributed, nn

from pontryagin.errors import ProblemError
from pontryagin.optim import EMSA, Metric, evaluate_averages

METRIC = Metric(moment_rows=None, refresh_budget=1e9, metric_rank=4)
STEPS, BATCH = 8, 12
X = torch.randn(STEPS * BATCH, 6, generator=torch.Generator().manual_seed(1))
Y = X[:, :3].argmax(1)


def net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, 3))


def alone(steps: int = STEPS) -> tuple[list[Tensor], list[Tensor]]:
    """Controls and averages."""
    model = net()
    optimizer = EMSA(model, metric=METRIC)
    for x, y in zip(X.split(BATCH)[:steps], Y.split(BATCH), strict=False):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step(loss=loss)
    controls = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.eval()
    return controls, list(model.parameters())


def far(one: Iterable[Tensor], other: Iterable[Tensor]) -> float:
    """The largest difference."""
    return max(float((entire(a).cpu() - b.detach()).abs().max()) for a, b in zip(one, other, strict=True))


def shards_on_cpus() -> None:
    """Accelerate takes FSDP on devices alone: so its state is told."""
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    usual = AcceleratorState.__init__

    def begin(self: Any, *arguments: Any, fsdp_plugin: Any = None, **named: Any) -> None:
        usual(self, *arguments, fsdp_plugin=fsdp_plugin, **named)
        if fsdp_plugin is not None:
            self._shared_state["fsdp_plugin"] = fsdp_plugin
        if self._shared_state.get("fsdp_plugin") is not None:
            self._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = begin


def accelerate(folder: Path, kind: str = "SHARDED_STATE_DICT") -> dict[str, float]:
    """Prepared, trained, evaluated, saved in parts or whole, gone on from."""
    from accelerate import Accelerator
    from accelerate.utils import FullyShardedDataParallelPlugin
    from safetensors.torch import load_file

    shards_on_cpus()
    sharded = FullyShardedDataParallelPlugin(fsdp_version=2, state_dict_type=kind)
    accelerator = Accelerator(cpu=True, fsdp_plugin=sharded)
    rank, ranks, plain = accelerator.process_index, accelerator.num_processes, net()
    names = [name for name, _ in plain.named_parameters()]
    model, optimizer = accelerator.prepare(plain, EMSA(plain, metric=METRIC))
    evaluate_averages(model, optimizer)

    def trained(numbers: range) -> None:
        model.train()
        for number in numbers:
            x, y = (part.split(BATCH)[number][rank::ranks] for part in (X, Y))
            loss = nn.functional.cross_entropy(model(x), y)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1e9)
            optimizer.step(lambda loss=loss: loss)
            optimizer.zero_grad()

    trained(range(4))
    model.eval()
    with torch.no_grad():
        model(X)
    found = {"evaluated": far(model.parameters(), alone(4)[1])}
    accelerator.save_state(str(folder / "state"))
    accelerator.save_model(model, str(folder / "model"))
    if rank == 0:
        saved = load_file(folder / "model" / "model.safetensors")
        found["saved"] = far([saved[name] for name in names], alone(4)[1])
    trained(range(4, STEPS))
    found["goes on"] = far(model.parameters(), alone()[0])
    accelerator.load_state(str(folder / "state"))
    trained(range(4, STEPS))
    found["loaded, goes on"] = far(model.parameters(), alone()[0])
    model.eval()
    with torch.no_grad():
        model(X)
    return found | {"evaluated at the end": far(model.parameters(), alone()[1])}


def version_1(folder: Path) -> dict[str, float]:
    """Accelerate wraps the model in FullyShardedDataParallel after the optimizer was made."""
    from accelerate import Accelerator
    from accelerate.utils import FullyShardedDataParallelPlugin

    shards_on_cpus()
    accelerator = Accelerator(cpu=True, fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=1))
    accelerator.state._shared_state["device"] = torch.device("cpu")  # else torch finds cpu:0 to be another
    plain = net()
    model, optimizer = accelerator.prepare(plain, EMSA(plain))
    accelerator.backward(model(X).sum())
    with pytest.raises(ProblemError, match="FullyShardedDataParallel flattens parameters"):
        optimizer.step()
    return {"refused": 0.0}


def trainer(folder: Path) -> dict[str, float]:
    """It makes the optimizer; a checkpoint without an evaluation."""
    import transformers

    class Task(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"loss": nn.functional.cross_entropy(self.net(x), labels)}

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    class Averages(transformers.TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            evaluate_averages(named["model"], named["optimizer"])

    shards_on_cpus()
    settings = transformers.TrainingArguments(
        str(folder), max_steps=STEPS, per_device_train_batch_size=BATCH // 2, use_cpu=True, report_to=[],
        save_strategy="steps", save_steps=4, logging_strategy="no", disable_tqdm=True, max_grad_norm=1e9,
        lr_scheduler_type="constant", fsdp=True, fsdp_config={"version": 2, "fsdp_version": 2})
    data = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]

    def run(**options: Any) -> InOrder:
        model = Task()
        made = InOrder(model, settings, train_dataset=data, eval_dataset=data, callbacks=[Averages()],
                       optimizer_cls_and_kwargs=(EMSA, {"model": model, "lr": 0.03, "metric": METRIC}))
        made.train(**options)
        return made

    early = Task()
    made = EMSA(early)
    with pytest.raises(RuntimeError, match="`optimizers` is not allowed"):
        InOrder(early, settings, train_dataset=data,
                optimizers=(made, torch.optim.lr_scheduler.ConstantLR(made, 1.0)))
    controls, averages = alone()
    done = run()
    rank, found = distributed.get_rank(), {}
    if rank == 0:
        from safetensors.torch import load_file

        for steps in (4, STEPS):
            saved = load_file(folder / f"checkpoint-{steps}" / "model.safetensors")
            found[f"saved at {steps}"] = far([saved[f"net.{name}"] for name, _ in net().named_parameters()],
                                             alone(steps)[1])
    done.evaluate()
    found["evaluated"] = far(done.model.parameters(), averages)
    done.optimizer.train()
    return found | {"trained": far(done.model.parameters(), controls)}


def lightning(folder: Path) -> dict[str, float]:
    """ModelParallelStrategy, with fully_shard in configure_model."""
    import lightning
    from lightning.pytorch.strategies import ModelParallelStrategy
    from torch.distributed.fsdp import fully_shard

    expected = alone()[1]

    class Task(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net, self.validated = net(), torch.inf

        def configure_model(self) -> None:
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

        def training_step(self, batch: list[Tensor]) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: list[Tensor]) -> None:
            self.net(batch[0])
            self.validated = far(self.net.parameters(), expected)

        def configure_optimizers(self) -> EMSA:
            optimizer = EMSA(self.net, metric=METRIC)
            evaluate_averages(self.net, optimizer)
            return optimizer

    pairs = torch.utils.data.TensorDataset(X, Y)
    # Lightning's own shuffles
    ordered = torch.utils.data.DistributedSampler(pairs, 2, int(os.environ["RANK"]), shuffle=False)
    made = lightning.Trainer(max_epochs=1, accelerator="cpu", devices=2, logger=False,
                             use_distributed_sampler=False,
                             strategy=ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1),
                             enable_checkpointing=False, enable_progress_bar=False, num_sanity_val_steps=0,
                             enable_model_summary=False)
    task = Task()
    made.fit(task, torch.utils.data.DataLoader(pairs, BATCH // 2, sampler=ordered),
             torch.utils.data.DataLoader(pairs, len(pairs)))
    made.save_checkpoint(folder / "last.ckpt")
    return {"validated": task.validated}


def zero(folder: Path) -> dict[str, float]:
    """Refused in one line, by whatever makes EMSA of parameters."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    distributed.init_process_group("gloo")
    with pytest.raises(ProblemError, match="EMSA expects a torch module, found list: "):
        ZeroRedundancyOptimizer(net().parameters(), EMSA)
    return {"refused": 0.0}


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, folder = sys.argv[1], Path(sys.argv[2])
    found = {"accelerate": accelerate, "accelerate, whole": partial(accelerate, kind="FULL_STATE_DICT"),
             "version 1": version_1, "trainer": trainer, "lightning": lightning, "zero": zero}[name](folder)
    torch.save(found, folder / f"rank{distributed.get_rank()}.pt")
    distributed.barrier()
    distributed.destroy_process_group()
