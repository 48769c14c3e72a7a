"""EMSA survives what training loops do to a torch optimizer: groups, schedulers, clipping, scaling, autocast,
compilation."""

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from optim_builders import (
    Attention,
    Net,
    assert_close,
    emsa_of_all_rows,
    images,
    loss_of,
    mlp,
    net,
    parameters,
    train,
    vectors,
)
from torch import Tensor, nn
from torch.optim import lr_scheduler

from pontryagin.optim import EMSA, Metric
from pontryagin.problem import ProblemError


def changes(model: nn.Module, act: Callable[[], Any]) -> dict[str, Tensor]:
    """How far act moves the parameters."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    act()
    return {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}


def one_step(model: nn.Module, optimizer: EMSA, seed: int = 0) -> dict[str, Tensor]:
    optimizer.zero_grad()
    loss_of(model, *vectors(seed=seed)).backward()
    return changes(model, optimizer.step)


def test_options_of_groups() -> None:
    model, steep, plain = mlp(), mlp(), mlp()
    groups = [{"params": model[0].parameters(), "lr": 0.1, "exponent": 1.0},
              {"params": model[2].parameters()}]
    optimizer = EMSA(model, groups, lr=0.2)
    found = one_step(model, optimizer)
    first = one_step(steep, EMSA(steep, lr=0.1, metric=Metric(exponent=1.0)))
    second = one_step(plain, EMSA(plain, lr=0.2))
    for name, change in found.items():
        assert_close(change, (first if name.startswith("0") else second)[name], 1e-12)


def test_bias_in_a_group_without_decay_stays_in_its_stage() -> None:
    """The usual split into decayed weights and the rest: the step is that of one group, each with its own lr
    and decay."""
    model, plain = net(), net()
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    optimizer = EMSA(model, [{"params": weights, "weight_decay": 0.5}, {"params": others, "lr": 0.015}],
                     lr=0.03, strict=True)
    reference = EMSA(plain, lr=0.03)
    for one in (model, plain):
        loss_of(one, *images()).backward()
    start = {name: parameter.detach().clone() for name, parameter in plain.named_parameters()}
    found, expected = changes(model, optimizer.step), changes(plain, reference.step)
    for name, change in found.items():
        assert_close(change, expected[name] - 0.03 * 0.5 * start[name] if change.ndim > 1
                     else expected[name] / 2, 1e-12)


def test_named_parameters_are_accepted() -> None:
    model = mlp()
    optimizer = EMSA(model, list(model.named_parameters()))
    assert all(change.any() for change in one_step(model, optimizer).values())


def test_step_is_proportional_to_lr() -> None:
    first, second = mlp(), mlp()
    small, large = one_step(first, EMSA(first, lr=0.01)), one_step(second, EMSA(second, lr=0.04))
    for name, change in small.items():
        assert_close(4 * change, large[name], 1e-12)


@pytest.mark.parametrize("make", [
    lambda optimizer: lr_scheduler.StepLR(optimizer, 2, 0.5),
    lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=8, cycle_momentum=False),
    lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.0 if epoch == 0 else 1 / epoch),
    lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 5),
], ids=["step", "one cycle", "lambda", "cosine"])
def test_schedulers(make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]) -> None:
    model = mlp()
    optimizer = EMSA(model)
    scheduler, rates = make(optimizer), []
    for step in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        moved = one_step(model, optimizer, step)
        assert all(change.any() == (rates[-1] > 0) for change in moved.values())
        scheduler.step()
    assert len(set(rates)) > 2


def test_reduce_on_plateau() -> None:
    model = mlp()
    optimizer = EMSA(model, lr=0.02)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)
    for _ in range(3):
        one_step(model, optimizer)
        scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0002)


def test_closures_that_return_the_loss_or_nothing() -> None:
    model, silent, plain = mlp(), mlp(), mlp()

    def run(one: nn.Module, returns: bool) -> Any:
        optimizer = EMSA(one, acceptance=None)

        def closure() -> Tensor | None:
            optimizer.zero_grad()
            loss = loss_of(one, *vectors())
            loss.backward()
            return loss if returns else None

        for _ in range(3):
            result = optimizer.step(closure)
        return result

    assert run(silent, False) is None
    assert run(model, True).item() > 0
    train(plain, EMSA(plain), 3, lambda seed: vectors())
    assert torch.equal(parameters(model), parameters(plain))
    assert torch.equal(parameters(silent), parameters(plain))


@pytest.mark.parametrize("name", ["convolutions", "polar steps"])
def test_accumulation_is_the_big_batch(name: str) -> None:
    whole, parts = (net(), net()) if name == "convolutions" else (mlp(), mlp())
    for module in (*whole.modules(), *parts.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # in training it sees its own batch
    one, other = emsa_of_all_rows(whole), emsa_of_all_rows(parts)
    for step in range(4):
        x, y = images(12, seed=step) if name == "convolutions" else vectors(30, seed=step)
        one.zero_grad(), other.zero_grad()  # type: ignore[func-returns-value]
        loss_of(whole, x, y).backward()
        for some, labels in zip(x.chunk(3), y.chunk(3), strict=True):
            (loss_of(parts, some, labels) / 3).backward()
        one.step(), other.step()  # type: ignore[func-returns-value]
        if step == 0:
            for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
                for key in one.state.get(a, {}).keys() & {"mean", "moment"}:
                    assert_close(other.state[b][key], one.state[a][key], 1e-12)
    assert_close(parameters(parts), parameters(whole), 1e-8)


def test_clipping() -> None:
    model, plain = mlp(), mlp()
    optimizer, reference = EMSA(model, momentum=0.0), EMSA(plain, momentum=0.0)
    for step in range(3):
        for one, method in ((model, optimizer), (plain, reference)):
            method.zero_grad()
            loss_of(one, *vectors(seed=step)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3 if step == 1 else 1e9)
        found, expected = changes(model, optimizer.step), changes(plain, reference.step)
        for name, change in found.items():
            if step == 0:
                assert torch.equal(change, expected[name])
            assert change.isfinite().all()
    assert not torch.equal(parameters(model), parameters(plain))


def test_gradient_scaler_changes_nothing_and_skips_overflow() -> None:
    model, plain = mlp(torch.float32), mlp(torch.float32)
    optimizer, reference = EMSA(model), EMSA(plain)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step in range(6):
        x, y = vectors(dtype=torch.float32, seed=step)
        if step == 3:  # an overflow: the scaler does not call the optimizer
            optimizer.zero_grad()
            scaler.scale(loss_of(model, torch.full_like(x, torch.inf), y)).backward()
            moved = changes(model, lambda: scaler.step(optimizer))
            scaler.update()
            assert not any(change.any() for change in moved.values())
        for one, method in ((model, optimizer), (plain, reference)):
            method.zero_grad()
            loss = loss_of(one, x, y)
            (scaler.scale(loss) if one is model else loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1e9)
        scaler.step(optimizer)
        scaler.update()
        reference.step()
    assert scaler.get_scale() < 2.0**10
    assert_close(parameters(model), parameters(plain), 2e-2)
    assert train(model, optimizer, 2, vectors, dtype=torch.float32)[-1] > 0


def test_overflow_at_the_first_batch_does_not_lose_the_stages() -> None:
    """A scaler starts with a scale that is too large; inputs may overflow as well."""
    model = mlp(torch.float32)
    optimizer = EMSA(model, strict=True)
    x, y = vectors(dtype=torch.float32)
    loss_of(model, torch.full_like(x, torch.inf), y).backward()
    train(model, optimizer, 3, vectors, dtype=torch.float32)
    assert all("moment" in optimizer.state[layer.weight] for layer in (model[0], model[2]))


@pytest.mark.parametrize("everything", [False, True])
def test_autocast(everything: bool) -> None:
    """Also with the backward pass and the step inside, where products would be rounded to bfloat16."""
    model = net(torch.float32)
    optimizer = EMSA(model)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, *images(dtype=torch.float32))
            if everything:
                loss.backward()
                optimizer.step()
        if not everything:
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    types = {value.dtype for state in optimizer.state.values() for value in state.values()}
    assert types <= {torch.float32, torch.float64, torch.bool}


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_compiled_models(backend: str, wrapped: bool) -> None:
    torch._dynamo.reset()
    model, plain = mlp(), mlp()
    compiled = torch.compile(model, backend=backend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler
        optimizer = EMSA(compiled if wrapped else model, strict=True)
        losses = train(compiled, optimizer, 4, vectors)
        expected = train(plain, EMSA(plain), 4, vectors)
    assert losses == pytest.approx(expected, rel=1e-9)
    assert all("moment" in optimizer.state[layer.weight] for layer in (model[0], model[2]))


@pytest.mark.parametrize("averaged", [False, True])
def test_copies_of_the_model_do_not_disturb(averaged: bool) -> None:
    model, plain = net(), net()
    optimizer, reference = emsa_of_all_rows(model), emsa_of_all_rows(plain)
    other = torch.optim.swa_utils.AveragedModel(model) if averaged else copy.deepcopy(model)
    for step in range(5):
        loss_of(other, *images(seed=50 + step)).backward()
        other(images(seed=70)[0])
        train(model, optimizer, 1, images, first=step)
        if averaged:
            other.update_parameters(model)
        loss_of(other, *images(seed=50 + step)).backward()
        train(plain, reference, 1, images, first=step)
    assert torch.equal(parameters(model), parameters(plain))


def test_evaluation_leaves_the_trajectory_unchanged() -> None:
    model, plain = net(), net()
    optimizer, reference = emsa_of_all_rows(model), emsa_of_all_rows(plain)
    for step in range(6):
        model.eval()
        model(images(seed=90)[0])
        with torch.no_grad():
            model(images(seed=91)[0])
        with torch.inference_mode():
            model(images(seed=92)[0])
        model.train()
        train(model, optimizer, 1, images, first=step)
        train(plain, reference, 1, images, first=step)
    assert torch.equal(parameters(model), parameters(plain))


def test_frozen_and_unused_parameters_stay() -> None:
    model = net()
    model.unused = nn.Linear(3, 3).double()
    model.features[0].requires_grad_(False)
    model.head[0].bias.requires_grad_(False)
    optimizer = EMSA(model, strict=True)
    moved = changes(model, lambda: train(model, optimizer, 4, images))
    still = {"features.0.weight", "features.0.bias", "head.0.bias", "unused.weight", "unused.bias"}
    assert {name for name, change in moved.items() if not change.any()} == still


@pytest.mark.parametrize("by_group", [True, False])
def test_unfreezing(by_group: bool) -> None:
    """Late, when no refresh is due: the new stage moves at once, and is seen and maximized as such at once
    where the optimizer is told, else from the next step on."""
    model = mlp()
    model[0].requires_grad_(False)
    optimizer = EMSA(model, model[2].parameters() if by_group else None, strict=True,
                     metric=Metric(refresh_budget=1e-9))
    moved = changes(model, lambda: train(model, optimizer, 21, vectors))
    assert not moved["0.weight"].any()
    model[0].requires_grad_(True)
    if by_group:
        optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.01})
        with pytest.raises(ProblemError, match="not one of the model's"):
            optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
        assert len(optimizer.param_groups) == 2
    for step in range(1 if by_group else 2):
        moved = changes(model, lambda step=step: train(model, optimizer, 1, vectors, first=21 + step))
        assert all(change.any() for change in moved.values())
    assert "first" not in optimizer.state[model[0].weight]
    assert "moment" in optimizer.state[model[0].weight]
    assert len(optimizer.stages().rows) == 2


def test_unfreezing_a_bias() -> None:
    model = mlp()
    model[0].bias.requires_grad_(False)
    optimizer = EMSA(model)
    train(model, optimizer, 3, vectors)
    model[0].bias.requires_grad_(True)
    moved = changes(model, lambda: train(model, optimizer, 3, vectors, first=3))
    assert all(change.any() for change in moved.values())


def test_weight_frozen_alone_leaves_the_bias_to_adamw() -> None:
    model = mlp()
    model[0].weight.requires_grad_(False)
    with pytest.warns(UserWarning, match=r"by AdamW: 0\.bias$"):
        optimizer = EMSA(model)
    assert one_step(model, optimizer)["0.bias"].any()


def test_zero_gradients_initialize_and_do_not_move() -> None:
    model = net()
    optimizer = EMSA(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert not any(change.any() for change in changes(model, optimizer.step).values())
    shapes = {key: value.shape for key, value in optimizer.state[model.head[0].weight].items()}
    optimizer.zero_grad()
    train(model, optimizer, 3, images)
    assert {key: value.shape for key, value in optimizer.state[model.head[0].weight].items()} == shapes
    for stage in optimizer.stages().rows:
        assert stage.maximized.startswith("closed form")


def test_functional_use_of_a_weight_falls_back_with_a_warning() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 7), nn.Linear(7, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.first(x).tanh(), self.second.weight, self.second.bias)

    model = Functional().double()
    optimizer = EMSA(model)
    with pytest.warns(UserWarning, match=r"no inputs of second\.weight"):
        losses = train(model, optimizer, 1, lambda seed: vectors())
    losses += train(model, optimizer, 20, lambda seed: vectors())
    assert losses[-1] < 0.8 * losses[0]
    by_adamw = {row.name for row in optimizer.stages().rows if row.maximized == "AdamW"}
    assert by_adamw == {"second.weight", "second.bias"}


def test_second_optimizer_on_the_same_model() -> None:
    model, plain = mlp(), mlp()
    EMSA(model)
    train(model, EMSA(model), 4, vectors)
    train(plain, EMSA(plain), 4, vectors)
    assert torch.equal(parameters(model), parameters(plain))


@pytest.mark.filterwarnings("ignore:EMSA trains")
def test_transformer_trains() -> None:
    torch.manual_seed(0)
    model = Attention().double()
    tokens, labels = torch.randint(0, 11, (16, 6)), torch.randint(0, 3, (16,))
    padding = model.table.weight[0].detach().clone()
    losses = train(model, EMSA(model, lr=0.02), 25, lambda seed: (tokens, labels))
    assert losses[-1] < 0.3 * losses[0]
    assert torch.equal(model.table.weight[0].detach(), padding)


def test_training_with_checkpointed_activations() -> None:
    class Checkpointed(Net):
        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.utils.checkpoint.checkpoint(self.features, x, use_reentrant=False)
            return torch.utils.checkpoint.checkpoint(self.head, hidden.flatten(1), use_reentrant=False)

    torch.manual_seed(0)
    model, plain = Checkpointed().double(), net()
    train(model, EMSA(model), 4, images)
    train(plain, EMSA(plain), 4, images)
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_copies_of_model_and_optimizer_go_on_as_they_do() -> None:
    model = mlp()
    optimizer = EMSA(model)
    train(model, optimizer, 5, vectors)
    others = [copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer)))]
    train(model, optimizer, 5, vectors, first=5)
    for other, method in others:
        assert not torch.equal(parameters(other), parameters(model))
        train(other, method, 5, vectors, first=5)
        assert torch.equal(parameters(other), parameters(model))


def test_skorch() -> None:
    skorch = pytest.importorskip("skorch")
    model = mlp(torch.float32)
    x, y = vectors(dtype=torch.float32)
    network = skorch.NeuralNetClassifier(model, criterion=nn.CrossEntropyLoss, max_epochs=2, verbose=0,
                                         train_split=None)
    network.initialize()
    network.optimizer_ = EMSA(network.module_)
    network.partial_fit(x.numpy(), y.numpy())
    assert len(network.history) == 2


@pytest.mark.filterwarnings("ignore::FutureWarning")  # lightning's own
def test_lightning() -> None:
    lightning = pytest.importorskip("lightning")

    class Task(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(torch.float32)

        def training_step(self, batch: list[Tensor]) -> Tensor:
            return loss_of(self.net, *batch)

        def configure_optimizers(self) -> EMSA:
            return EMSA(self.net)

    task = Task()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*vectors(dtype=torch.float32)), 6)
    trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
                                enable_progress_bar=False, enable_model_summary=False)
    assert all(change.any() for change in changes(task, lambda: trainer.fit(task, loader)).values())


def test_trainer(tmp_path: Path) -> None:
    """transformers' Trainer steps through accelerate, without a closure, with its own clipping and
    schedule."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(torch.float32)

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"loss": F.cross_entropy(self.net(x), labels)}

    x, y = vectors(dtype=torch.float32)
    model = Classifier()
    settings = transformers.TrainingArguments(str(tmp_path), max_steps=4, per_device_train_batch_size=6,
                                              report_to=[], save_strategy="no", use_cpu=True,
                                              disable_tqdm=True, logging_strategy="no")
    data = [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]
    optimizer = EMSA(model)
    trainer = transformers.Trainer(model, settings, train_dataset=data, eval_dataset=data,
                                   optimizers=(optimizer, None))
    assert all(change.any() for change in changes(model, trainer.train).values())
    changed = changes(model, trainer.evaluate)
    assert all(change.any() for change in changed.values()), "what is evaluated, and saved, are the averages"
    found = changes(model, optimizer.train)
    for name, change in changed.items():
        assert_close(found[name], -change, 1e-6)


def test_a_stage_that_is_unfrozen_late_moves_by_finite_steps() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    model[0].requires_grad_(False)
    optimizer = EMSA(model)
    for step in range(27):
        if step == 21:
            model[0].requires_grad_(True)
        optimizer.zero_grad()
        model(torch.randn(16, 4, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        optimizer.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
