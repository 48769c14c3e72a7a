"""Rows and costates are those of the layers: sum u x^T is the gradient of W, sum u that of b, however the
layers are used."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from optim_builders import (
    Attention,
    Net,
    assert_close,
    check_gradients,
    checked,
    images,
    loss_of,
    net,
    summed,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pontryagin.optim import EMSA
from pontryagin.trajectory.capture import capture
from pontryagin.trajectory.captured_stage import CapturedStage


def test_convolutional_net() -> None:
    model = net()
    stages = checked(model)
    loss_of(model, *images()).backward()
    assert [stage.name for stage in stages] == ["features.0.weight", "features.1.weight", "head.0.weight",
                                                "head.1.weight", "head.3.weight"]
    check_gradients(stages)


@pytest.mark.parametrize("make", [
    lambda: nn.Sequential(nn.Conv1d(2, 4, 3, padding="same", groups=2), nn.GroupNorm(2, 4),
                          nn.ConvTranspose1d(4, 2, 3, 2, 1, 1)),
    lambda: nn.Sequential(nn.ConvTranspose1d(2, 3, 2, dilation=3, output_padding=2), nn.BatchNorm1d(3),
                          nn.RMSNorm(13)),
    lambda: nn.Sequential(nn.Conv1d(2, 3, 2, padding=1, padding_mode="circular", bias=False),
                          nn.LayerNorm((3, 9), bias=False)),
], ids=["transposed", "dilated", "circular"])
def test_other_layers(make: type[nn.Module]) -> None:
    model = make().double()
    stages = checked(model)
    model(torch.randn(4, 2, 8, dtype=torch.float64)).pow(3).mean().backward()
    check_gradients(stages)


class Reused(nn.Module):
    """One layer in three places, and three layers with the same input."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)
        self.q, self.k, self.v = (nn.Linear(4, 4, bias=n > 0) for n in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = x + self.step(x).tanh()
        return (self.q(x) @ self.k(input=x).mT).softmax(-1) @ self.v(x)


@pytest.mark.parametrize("batches", [1, 3])
def test_reused_layers_shared_inputs_and_accumulation(batches: int) -> None:
    model = Reused().double()
    stages = checked(model)
    for _ in range(batches):
        model(torch.randn(2, 5, 4, dtype=torch.float64)).square().sum().backward()
    check_gradients(stages)
    checks = {stage.name: stage.gradient_check for stage in stages}
    assert len(checks["step.weight"] or []) == 3 * batches
    assert len(checks["k.weight"] or []) == batches


@pytest.mark.parametrize("batch_first", [True, False])
def test_transformer(batch_first: bool) -> None:
    model = Attention(batch_first).double()
    stages = checked(model)
    tokens = torch.randint(0, 11, (3, 6))
    loss_of(model, tokens, torch.randint(0, 3, (3,))).backward()
    check_gradients(stages)
    kinds = {stage.name: stage.map.kind for stage in stages}
    assert kinds["layer.self_attn.in_proj_weight"] == "MultiheadAttention"
    assert "layer.self_attn.out_proj.weight" not in kinds


def test_activation_checkpointing_counts_once() -> None:
    model, plain = net(), net()
    x, y = images()
    stages, expected = checked(model), checked(plain)
    hidden = checkpoint(model.features, x, use_reentrant=False).flatten(1)
    F.cross_entropy(checkpoint(model.head, hidden, use_reentrant=False), y).backward()
    loss_of(plain, x, y).backward()
    check_gradients(stages)
    for one, other in zip(stages, expected, strict=True):
        assert len(one.gradient_check or []) == 1
        found, wanted = one.moments.take(), other.moments.take()
        assert found is not None
        assert wanted is not None
        assert torch.equal(found.mean, wanted.mean)
        assert torch.equal(found.product, wanted.product)


class Tied(nn.Module):
    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)
        if tied:
            self.head.weight = self.table.weight
        else:
            self.head.load_state_dict({"weight": self.table.weight, "bias": self.head.bias})

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.table(tokens)).mT


def test_tied_tables_are_the_heads_stage() -> None:
    """The gradient of a tied weight is the sum over its roles; the stage is the head's, whose inputs set the
    metric."""
    tied = Tied(True).double()
    apart = copy.deepcopy(tied)
    apart.head.weight = nn.Parameter(tied.table.weight.detach().clone())
    tokens, targets = torch.randint(0, 7, (3, 5)), torch.randint(0, 7, (3, 5))
    (stage,), roles = checked(tied), checked(apart)
    assert stage.map.kind == "Linear"
    for model in (tied, apart):
        loss_of(model, tokens, targets).backward()
    check_gradients(roles)
    assert tied.table.weight.grad is not None
    assert_close(sum(summed(role)[0] for role in roles), tied.table.weight.grad, 1e-10)
    assert_close(summed(stage)[0], apart.head.weight.grad, 1e-10)


def test_tied_linear_layers_are_one_stage() -> None:
    first, second = nn.Linear(4, 4).double(), nn.Linear(4, 4, bias=False).double()
    second.weight = first.weight
    (stage,) = checked(nn.Sequential(first, second))
    second(first(torch.randn(6, 4, dtype=torch.float64)).tanh()).square().sum().backward()
    assert_close(summed(stage)[0], first.weight.grad, 1e-10)
    assert len(stage.gradient_check or []) == 2


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_self_attention_sees_the_rows_of_the_query(batch_first: bool, by_name: bool) -> None:
    attention = nn.MultiheadAttention(4, 2, batch_first=batch_first, dtype=torch.float64)
    (stage,), _ = capture(attention, None)
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    output, _ = attention(query=x, value=x, key=x) if by_name else attention(x, x, x, need_weights=False)
    output.sum().backward()
    taken = stage.moments.take()
    assert taken is not None
    rows = x.flatten(0, 1)
    assert_close(taken.mean[0], rows.mean(0))
    assert_close(taken.product[0], torch.cov(rows.mT, correction=0))
    assert stage.positions == 15
    assert stage.bias is attention.in_proj_bias


def test_self_attention_is_one_map_and_cross_attention_three() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.cross = nn.MultiheadAttention(4, 2), nn.MultiheadAttention(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.own(x, x, x)[0]
            return self.cross(x, x.tanh(), x.tanh())[0]

    model = Both().double()
    with pytest.warns(UserWarning, match=r"own\.out_proj\.weight.*cross\.out_proj\.bias"):
        optimizer = EMSA(model)
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    output = model(x)
    output.square().sum().backward()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer.step()
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    methods = {row.name: row.maximized for row in optimizer.stages().rows}
    assert methods["own.in_proj_weight"].startswith("closed form")
    assert methods["cross.in_proj_weight"].startswith("closed form")
    assert methods["own.out_proj.weight"] == methods["cross.out_proj.bias"] == "AdamW"
    assert optimizer.state[model.own.in_proj_weight]["mean"].shape == (1, 4)
    means = optimizer.state[model.cross.in_proj_weight]["mean"]
    assert_close(means[1], means[2], 1e-12)  # of keys and values, which are the same
    assert not torch.allclose(means[0], means[1])


def test_frozen_stages_and_evaluation_leave_no_trace() -> None:
    model = net()
    model.head[0].requires_grad_(False)
    stages, _ = capture(model, None)
    model(images()[0])
    with torch.no_grad():
        model(images()[0])
    assert all(stage.moments.take() is None for stage in stages)
    loss_of(model, *images()).backward()
    assert [stage.name for stage in stages if stage.moments.take() is None] == ["head.0.weight"]


def test_copies_and_pickles_of_the_model_do_not_capture() -> None:
    model = net()
    stages, _ = capture(model, None)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)]
    for other in others:
        assert isinstance(other, Net)
        loss_of(other, *images()).backward()
        assert all(stage.moments.take() is None for stage in stages)
    loss_of(model, *images()).backward()
    assert all(stage.moments.take() is not None for stage in stages)
    for other in others:
        assert all(torch.equal(a.grad, b.grad)
                   for a, b in zip(other.parameters(), model.parameters(), strict=True))


def test_copies_get_an_optimizer_of_their_own() -> None:
    model = net()
    capture(model, None)
    other = copy.deepcopy(model)
    before = [parameter.detach().clone() for parameter in other.parameters()]
    optimizer = EMSA(other)
    loss_of(other, *images()).backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(other.parameters(), before, strict=True))


def test_reparametrized_and_sparse_layers_are_left_to_adamw() -> None:
    model = nn.Sequential(nn.Embedding(5, 3, sparse=True),
                          nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    with pytest.warns(UserWarning, match=r"0\.weight.*1\.parametrizations\.weight\.original0"):
        optimizer = EMSA(model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    loss_of(model, torch.tensor([1, 2]), torch.tensor([0, 1])).backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_functional_transforms_ignore_the_hooks() -> None:
    model = net().eval()
    stages, _ = capture(model, None)
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    x, y = images(4)

    def loss(values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, values, x[None]), y[None])

    torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, x, y)
    assert all(stage.moments.take() is None for stage in stages)


@pytest.mark.parametrize(("samples", "length", "rows"),
                         [(100, 3, 60), (30, 5, 8), (9, 40, 100), (6, 50, 10), (20, 3, 60)])
def test_thinning_takes_a_row_of_each_stratum(samples: int, length: int, rows: int) -> None:
    model = nn.Linear(1, 1, bias=False)
    (stage,), _ = capture(model, rows)
    seen: list[Tensor] = []
    add = stage.moments.add
    stage.moments.add = lambda rows: (seen.append(rows), add(rows))[1]  # type: ignore
    x = torch.arange(samples * length).float().view(samples, length, 1)
    model(x).sum().backward()
    values, count = seen[0].flatten(), samples * length
    assert len(values) == min(rows, count)
    places = values - torch.arange(len(values)) * (count / len(values))
    assert ((places > -1) & (places < count / len(values))).all()
    if length == 40:  # no position is left out, as it would be at even distances
        assert len((values % 4).unique()) == 4


def test_thinning_keeps_whole_images() -> None:
    (stage,), _hooks = capture(nn.Conv2d(1, 1, 1, bias=False), 100)
    seen: list[Tensor] = []
    add = stage.moments.add
    stage.moments.add = lambda rows: (seen.append(rows), add(rows))[1]  # type: ignore
    stage.module(torch.arange(60).float()[:, None, None, None].expand(60, 1, 3, 3)).sum().backward()
    values, counts = seen[0].flatten().unique(return_counts=True)
    assert len(values) == 100 // 9
    assert (counts == 9).all()


def test_positions_count_rows() -> None:
    def positions(module: nn.Module, x: Tensor) -> list[int]:
        stages: list[CapturedStage]
        stages, _ = capture(module, None)
        module(x).sum().backward()
        return [stage.positions for stage in stages]

    assert positions(nn.Linear(3, 2), torch.ones(4, 5, 3)) == [20]
    assert positions(nn.Conv2d(2, 4, 3, stride=2, groups=2), torch.ones(3, 2, 7, 5)) == [3 * 3 * 2]
    assert positions(nn.ConvTranspose2d(4, 2, 3, stride=2, groups=2), torch.ones(3, 4, 2, 5)) == [30, 1]
    assert positions(nn.LayerNorm((2, 3)), torch.rand(4, 2, 3)) == [4]
    assert positions(nn.BatchNorm2d(2), torch.rand(4, 2, 3, 3)) == [36]
    assert positions(nn.Embedding(5, 3), torch.ones(2, 7, dtype=torch.long)) == [14]
