"""Hessians and audits of models with several inputs, attention, and ignored targets, against the slow and
obvious way."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pontryagin.audit import audit
from pontryagin.diagnostics import module_hessian, problem_hessian
from pontryagin.problem import ControlProblem, CrossEntropy, ProblemError, Ternary, stage


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor, mask: Tensor, scale: float = 1.0) -> Tensor:
        return self.second(torch.tanh(self.first(x * mask)) * scale)


def masked(form: str) -> tuple[Masked, list[tuple[Any, Tensor]], tuple[Any, Tensor]]:
    """A model, batches of 12, 2 and 5 samples, and all of them as one."""
    torch.manual_seed(0)
    model = Masked().double()
    x, mask, y = 2 * torch.randn(19, 4,
                                 dtype=torch.float64), (torch.rand(19,
                                                                   4) < 0.7).double(), torch.randint(3, (19,))
    form_of: Callable[[slice], Any] = {
        "tuple": lambda part: (x[part], mask[part]), "list": lambda part: [x[part], mask[part]],
        "dict": lambda part: {"mask": mask[part], "x": x[part]}}[form]
    parts = [slice(0, 12), slice(12, 14), slice(14, 19)]
    return model, [(form_of(part), y[part]) for part in parts], (form_of(slice(None)), y)


def dense(model: nn.Module, cost: Callable[[Callable[..., Tensor]], Tensor]) -> Tensor:
    """The Hessian of a cost of the model, by central differences of gradients in float64."""
    held = {name: value.detach() for name, value in model.named_parameters()}
    sizes = [value.numel() for value in held.values()]

    def gradient(flat: Tensor) -> Tensor:
        flat = flat.clone().requires_grad_()
        own = {name: piece.view_as(value)
               for (name, value), piece in zip(held.items(), flat.split(sizes), strict=True)}
        return torch.autograd.grad(cost(lambda *given, **named: torch.func.functional_call(model, own, given,
                                                                                           named)), flat)[0]

    flat, step = torch.cat([value.flatten() for value in held.values()]), 1e-5
    return torch.stack([(gradient(flat + step * unit) - gradient(flat - step * unit)) / (2 * step)
                        for unit in torch.eye(len(flat), dtype=torch.float64)], 1)


@pytest.mark.parametrize("form", ["tuple", "list", "dict"])
def test_hessian_is_that_of_the_mean_over_all_samples(form: str) -> None:
    model, batches, together = masked(form)
    expected = dense(model, lambda net: F.cross_entropy(
        net(**together[0]) if isinstance(together[0], dict) else net(*together[0]), together[1]))
    assert torch.allclose(module_hessian(model, "cross-entropy", batches).dense(), expected, atol=1e-8)
    found = audit(model, "cross-entropy", batches, sets=("ternary",))
    assert found.samples == 19
    whole = F.cross_entropy(model(x=together[0]["x"], mask=together[0]["mask"]) if form == "dict"
                            else model(*together[0]), together[1]).item()
    assert found.loss == pytest.approx(whole, rel=1e-12)


def test_inputs_that_do_not_fit_are_refused() -> None:
    model, batches, _ = masked("tuple")
    (x, mask), y = batches[0]
    for look in (lambda given: module_hessian(model, "cross-entropy", given),
                 lambda given: audit(model, "cross-entropy", given)):
        with pytest.raises(ProblemError, match="does not take the inputs of a batch, 4 arguments"):
            look([((x, mask, mask, mask), y)] * 3)
        with pytest.raises(ProblemError, match="a dict of x, masks"):
            look([({"x": x, "masks": mask}, y)] * 3)
        with pytest.raises(ProblemError, match="as many targets as samples in every input"):
            look([((x, mask[:-1]), y)] * 3)
        with pytest.raises(ProblemError, match="expected a pair of inputs and targets"):
            look([(x, mask, y)] * 3)
    with pytest.raises(ProblemError, match="output is one tensor, found tuple"):
        module_hessian(nn.LSTM(4, 3).double(), "cross-entropy", [(x, y)])


class Products(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*self.maps(x).chunk(3, -1), is_causal=True)


class Heads(nn.Module):
    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.attention, self.weights = nn.MultiheadAttention(4, 2, batch_first=True, dropout=0.2), weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.weights)[0]


ATTENTION: dict[str, Callable[[], nn.Module]] = {
    "products": Products, "heads": lambda: Heads(False), "heads with weights": lambda: Heads(True),
    "layer": lambda: nn.TransformerEncoderLayer(4, 2, 4, batch_first=True),
    "encoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 4, batch_first=True), 1)}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ATTENTION)
def test_hessian_through_attention(kind: str, training: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(ATTENTION[kind](), nn.Flatten(), nn.Linear(12, 2, bias=False)).double()
    model.train(training)
    batches = [(torch.randn(3, 3, 4, dtype=torch.float64), torch.randint(2, (3,))) for _ in range(2)]
    hessian = module_hessian(model, "cross-entropy", batches)
    torch.manual_seed(1)
    vector = torch.randn(hessian.size, dtype=torch.float64)
    found = hessian(vector)
    assert model.training == training
    model.eval()
    flat = nn.utils.parameters_to_vector(model.parameters()).detach()

    def gradient(at: Tensor) -> Tensor:
        nn.utils.vector_to_parameters(at, model.parameters())
        cost = sum(F.cross_entropy(model(x), y) for x, y in batches) / 2
        return nn.utils.parameters_to_vector(torch.autograd.grad(cost, list(model.parameters())))

    expected = (gradient(flat + 1e-5 * vector) - gradient(flat - 1e-5 * vector)) / 2e-5
    assert torch.allclose(found, expected, atol=1e-7 * float(expected.norm()))
    assert float(expected.norm()) > 1e-2


def test_hessian_of_a_control_problem_with_attention() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(5, 3, 4, dtype=torch.float64), torch.randint(2, (5,))
    problem = ControlProblem([stage(Products().double()), stage(nn.Flatten()),
                              stage(nn.Linear(12, 2).double())], CrossEntropy(),
                             x, y)
    hessian = problem_hessian(problem)
    one, other = torch.randn(2, hessian.size, dtype=torch.float64)
    assert (one @ hessian(other)).item() == pytest.approx((other @ hessian(one)).item(), rel=1e-9)


def test_what_has_no_second_derivative_is_refused() -> None:
    model = nn.Sequential(nn.EmbeddingBag(5, 4), nn.Linear(4, 2))
    hessian = module_hessian(model, "cross-entropy", [(torch.randint(5, (4, 3)), torch.randint(2, (4,)))])
    with pytest.raises(ProblemError,
                       match="module_hessian: part of the model has no second derivative in torch"):
        hessian(torch.ones(hessian.size))
    assert torch.backends.cuda.flash_sdp_enabled()


class Padded(nn.Module):
    """The mean over all places, padded ones too: torch's fast path for inference gives 0 at these."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return self.head(self.encoder(x, src_key_padding_mask=padding).mean(1))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_true_costs_and_gradients_take_one_way_through_attention() -> None:
    """The loss of passes with a graph is that of passes without one, where the model's own fast path
    differs."""
    torch.manual_seed(0)
    model = Padded()
    padding = torch.arange(5) >= torch.randint(2, 5, (4, 1))
    batches = [((torch.randn(4, 5, 4), padding), torch.randint(2, (4,))) for _ in range(3)]
    seen: list[Tensor] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(outputs.detach().clone())
        return F.cross_entropy(outputs, targets)

    found = audit(model, loss, batches, sets=("int8",))
    model.eval()
    slow = model(*batches[0][0]).detach()
    with torch.no_grad():
        fast = model(*batches[0][0])
    assert not torch.allclose(slow, fast, atol=1e-3)
    of_first = [outputs for outputs in seen if torch.allclose(outputs, slow, atol=1e-5)]
    assert len(of_first) >= 3  # gradients twice, and the base of the true costs
    assert not any(torch.allclose(outputs, fast, atol=1e-4) for outputs in seen)
    assert all(abs(one.true) < 0.01 for stage in found.stages for one in stage.restrictions)
    assert torch.backends.mha.get_fastpath_enabled()


def of_entries(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def torchs_mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)


LOSSES = {"name": "cross-entropy", "cost": CrossEntropy(), "entries": of_entries, "mean": torchs_mean}


def ignoring(shape: tuple[int, ...]) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """Batches with many and with few targets that count; the fourth has none."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    batches = []
    for share in (0.2, 0.8, 0.5, 1.0, 0.0):
        y = torch.randint(3, (6, *shape))
        y[torch.rand(y.shape) < share] = -100
        batches.append((torch.randn(6, *shape, 4, dtype=torch.float64), y))
    assert all((y >= 0).any() for _, y in batches[:3])
    return model, batches


@pytest.mark.parametrize(("loss", "shape"),
                         [("name", ()), ("name", (5,)), ("cost", ()), ("cost", (5,)), ("entries", ()),
                                             ("mean", ())])
def test_ignored_targets_leave_audits_and_hessians(loss: str, shape: tuple[int, ...]) -> None:
    """The loss, its Hessian and the true costs are those over all targets that count, as of one batch without
    the others."""
    model, batches = ignoring(shape)
    x, y = torch.cat([x for x, _ in batches]).flatten(0, -2), torch.cat([y for _, y in batches]).flatten()
    kept = y >= 0
    expected = dense(model, lambda net: F.cross_entropy(net(x[kept]), y[kept]))
    hessian = module_hessian(model, LOSSES[loss], batches)
    assert torch.allclose(hessian.dense(), expected, atol=1e-8)
    found = audit(model, LOSSES[loss], batches, sets=("ternary-rows",))
    assert found.loss == pytest.approx(F.cross_entropy(model(x[kept]), y[kept]).item(), rel=1e-12)
    assert found.batches == 4
    with torch.no_grad():
        before, old = found.loss, model[2].weight.clone()
        model[2].weight.copy_(Ternary("row").project(old))
        after = F.cross_entropy(model(x[kept]), y[kept]).item()
    assert found.stages[1].restrictions[0].true == pytest.approx(after - before, rel=1e-9)
    assert found.stages[1].restrictions[0].predicted == pytest.approx(after - before, rel=1e-9)


def test_parts_of_batches_without_targets() -> None:
    """So little memory that batches are done a sample or two at a time, some of which have no target."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2100), nn.Tanh(), nn.Linear(2100, 3)).double()
    batches = []
    for _ in range(3):
        y = torch.randint(3, (40,))
        y[5:35] = -100
        batches.append((torch.randn(40, 4, dtype=torch.float64), y))
    small, large = (audit(model, torchs_mean, batches, sets=("ternary", "int4", "50%"), measure=False,
                          memory=memory)
                    for memory in (2**20, 2**29))
    for one, other in zip(small.stages, large.stages, strict=True):
        for each, same in zip(one.restrictions, other.restrictions, strict=True):
            assert each.predicted == pytest.approx(same.predicted, rel=1e-9)
        assert one.gain == pytest.approx(other.gain, rel=1e-6)


def test_too_few_targets_are_refused() -> None:
    batches = [(torch.randn(4, 3), torch.full((4,), -100))] * 3
    with pytest.raises(ProblemError, match="targets that count, found 0"):
        audit(nn.Linear(3, 2), "cross-entropy", batches)
    with pytest.raises(ProblemError, match="0 batches with targets that count"):
        module_hessian(nn.Linear(3, 2), "cross-entropy", batches)
