"""Layers with a forward pass of their own: trained as the same function of plain layers is, or by AdamW and
said so.

Each case is a layer in the middle of a network and, where there is one, the same function of plain layers
with the same weights.
"""

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from optim_builders import said
from optim_kinds import deviation, few
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from pontryagin.optim import EMSA, Metric
from pontryagin.problem import ProblemError

STEPS, COMPARED = 20, 10


class Do(nn.Module):
    """A function as a module without parameters."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


def then(*parts: nn.Module | Callable[[Tensor], Tensor]) -> nn.Sequential:
    return nn.Sequential(*[part if isinstance(part, nn.Module) else Do(part) for part in parts])


# --- subclasses of Linear -----------------------------------------------------------------------------------


class Trivial(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class Equalized(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * 3.0, self.bias)


class BiasScaled(nn.Linear):
    """Of mapping networks: weight and bias have a rate of their own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * 2.0, self.bias * 0.1)


class Shift(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * self.bias


class Masked(nn.Linear):
    """The mask closes after five steps."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mask", torch.ones(outputs, inputs))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 6:
            self.mask.tril_()
        return F.linear(x, self.weight * self.mask, self.bias)


class Standardized(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        centred = self.weight - self.weight.mean(1, keepdim=True)
        return F.linear(x, centred / (centred.std(1, keepdim=True) + 1e-5), self.bias)


class Cosine(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * F.linear(F.normalize(x, dim=-1), F.normalize(self.weight, dim=1))


class Symmetric(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight + self.weight.t(), self.bias)


class Transposed(nn.Linear):
    """A square weight, taken the other way."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.t(), self.bias)


class Lowered(nn.Linear):
    """W + B A, with A and B parameters of their own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        weight, bias = self._parameters.pop("weight"), self._parameters.pop("bias")
        self.down = nn.Parameter(torch.randn(2, inputs) / 3)
        self.up = nn.Parameter(torch.randn(outputs, 2) / 3)
        self.weight, self.bias = weight, bias  # last, as in the network it is compared with

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight + self.up @ self.down, self.bias)


class Beside(nn.Module):
    """The same of a plain layer, called as such."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(torch.zeros(2, inputs)), nn.Parameter(torch.zeros(outputs, 2))
        self.plain = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x) + x @ self.down.mT @ self.up.mT


def on_grid(weight: Tensor) -> Tensor:
    return (8 * weight).round() / 8


def ternary(weight: Tensor) -> Tensor:
    scale = weight.abs().mean()
    return (weight / scale).round().clamp(-1, 1) * scale


class FakeQuantized(nn.Linear):
    """The gradient goes straight through the rounding."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight + (on_grid(self.weight) - self.weight).detach(), self.bias)


class Ternarized(nn.Linear):
    """With a scale of the weight's own, as in BitNet, and inputs normalized inside."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight + (ternary(self.weight) - self.weight).detach()
        return F.linear(F.layer_norm(x, x.shape[-1:]), weight, self.bias)


class Dropping(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.5, self.training))


class Rectified(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.relu(x))


class InPlace(nn.Linear):
    """What is multiplied lies where something else has been."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear((1 * x).mul_(3).add_(1), self.weight, self.bias)


class Activated(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sin()


class Residual(nn.Linear):
    """The first argument is not what the weight multiplies."""

    def forward(self, other: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        return other + super().forward(x)


class Twice(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - super().forward(x.abs() + 1)


class Detached(nn.Linear):
    """Of its two calls one has no gradient: its rows do not count."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - super().forward(40 * x.abs() + 10).detach().tanh()


class Centred(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - 2.0)


class Squared(nn.Linear):
    """Its weight in two ways in one pass."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.linear(x, self.weight.square())


# --- of convolutions ----------------------------------------------------------------------------------------


class StandardizedConvolution(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        deviation = self.weight.std((1, 2, 3), keepdim=True) + 1e-5
        return self._conv_forward(x, (self.weight - mean) / deviation, self.bias)


class Replicated(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (1, 1, 1, 1), mode="replicate"))


class SamePadded(nn.Conv2d):
    """Of networks that came from elsewhere: zeros on one side more than on the other."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 2, 0, 2)), self.weight, self.bias, self.stride)


class Causal(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (2, 0)))


class ChannelsLast(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mT).mT


class Cropped(nn.ConvTranspose1d):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[..., 1:-1]


class DilatedByHand(nn.Conv1d):
    """Its own attributes do not say what it does."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.weight, self.bias, padding=2, dilation=2)


# --- of norms and tables ------------------------------------------------------------------------------------


class ChannelsFirstNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NormInSingle(nn.LayerNorm):
    """Computed in float32, returned as it came."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps).type_as(x)


class NormShifted(nn.LayerNorm):
    """The weight is what is added to one."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, 1 + self.weight, self.bias, self.eps)


class NormBySize(nn.LayerNorm):
    """Not centred, in spite of its name."""

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


class LastAxisBatchNorm(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mT).mT


class Llama(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Gemma(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        return (1 + self.weight) * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class GemmaOfTorch(nn.RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, 1 + self.weight, self.eps)


class Conv1D(nn.Module):
    """GPT-2's linear layer: the weight is (input, output)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / 3)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)


class OwnLinear(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / 3)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def positions(mask: Tensor) -> Tensor:
    """0 where masked, else 1, 2, 3 ..."""
    return (mask.cumsum(1) * mask).long() + 1


class Positions(nn.Embedding):
    """OPT's: indices of its own, from a mask."""

    def forward(self, mask: Tensor) -> Tensor:
        return super().forward(positions(mask))


class Offset(nn.Embedding):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens + 2)


class ScaledTable(nn.Embedding):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens) * 3.0


# --- cases --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """own: the layer of its own kind; plain: from that layer the same function of plain modules with the same
    weights, None where there is none. shape: of the inputs of that layer; as_plain: its weight as the plain
    one's. call: how the network calls it, if not by x alone. single: it is float32 whatever the rest is."""

    own: Callable[[], nn.Module]
    plain: Callable[[], nn.Module] | None
    shape: tuple[int, ...] = (8,)
    as_plain: Callable[[Tensor], Tensor] = lambda weight: weight
    call: Callable[[nn.Module, Tensor], Tensor] = lambda layer, x: layer(x)
    tokens: bool = False
    single: bool = False


def linear(own: type[nn.Module], *around: Any, outputs: int = 8, **options: Any) -> Case:
    """around: functions before and after a plain Linear, with None in its place; nothing if there is no such
    network."""
    def plain() -> nn.Module:
        return then(*[nn.Linear(8, outputs) if part is None else part for part in around])

    return Case(lambda: own(8, outputs), plain if around else None, **options)


def overridden(act: Callable[[nn.Module, Tensor], Tensor]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layer = nn.Linear(8, 8)
        layer.forward = types.MethodType(act, layer)  # type: ignore[method-assign]
        return layer

    return make


def hooked(before: bool) -> nn.Module:
    """A plain layer with a hook of the user's that changes what it sees or returns."""
    layer = nn.Linear(8, 8)
    if before:
        layer.register_forward_pre_hook(lambda module, arguments: (3 * arguments[0].relu(),))
    else:
        layer.register_forward_hook(lambda module, arguments, output: 3 * output)
    return layer


def flipped(weight: Tensor) -> Tensor:
    return weight.t() if weight.ndim == 2 else weight


def raised(weight: Tensor) -> Tensor:
    """Only the weight is 1 + what is trained; biases of norms begin at 0 as well, so tests give them none."""
    return 1 + weight


CASES: dict[str, Case] = {
    "trivial": linear(Trivial, None),
    "equalized": linear(Equalized, lambda x: 3 * x, None),
    "bias scaled": Case(lambda: BiasScaled(8, 8), lambda: then(
        lambda x: 2 * x, nn.Linear(8, 8, bias=False), Shift(8))),
    "masked": linear(Masked),
    "standardized": linear(Standardized),
    "cosine": linear(Cosine),
    "symmetric": linear(Symmetric),
    "square, transposed": linear(Transposed, None, as_plain=flipped),
    "low rank beside": Case(lambda: Lowered(8, 8), lambda: Beside(8, 8)),
    "relu inside": linear(Rectified, F.relu, None),
    "in place inside": linear(InPlace, lambda x: 3 * x + 1, None),
    "dropout inside": linear(Dropping, nn.Dropout(0.5), None),
    "activated": linear(Activated, None, torch.sin),
    "two arguments": linear(Residual, None, call=lambda layer, x: (
        layer(9 * x, x) if isinstance(layer, Residual) else 9 * x + layer(x))),
    "called by name": linear(Residual, None, call=lambda layer, x: (
        layer(x=x, other=9 * x) if isinstance(layer, Residual) else 9 * x + layer(x))),
    "twice": linear(Twice, None, call=lambda layer, x: (
        layer(x) if isinstance(layer, Twice) else layer(x) - layer(x.abs() + 1))),
    "once of two": linear(Detached, None, call=lambda layer, x: layer(x) if isinstance(layer, Detached)
                          else layer(x) - layer(40 * x.abs() + 10).detach().tanh()),
    "centred": linear(Centred, lambda x: x - 2, None),
    "squared too": linear(Squared),
    "instance, scaled": Case(overridden(lambda self, x: F.linear(2 * x, self.weight, self.bias)),
                             lambda: then(lambda x: 2 * x, nn.Linear(8, 8))),
    "instance, weight changed": Case(overridden(
        lambda self, x: F.linear(x, self.weight.tanh(), self.bias)), None),
    "hook before": Case(lambda: hooked(True), lambda: then(lambda x: 3 * x.relu(), nn.Linear(8, 8))),
    "hook after": Case(lambda: hooked(False), lambda: then(nn.Linear(8, 8), lambda x: 3 * x)),
    "GPT-2": linear(Conv1D, None, outputs=12, as_plain=flipped),
    "GPT-2, square": linear(Conv1D, None, as_plain=flipped),
    "own linear": linear(OwnLinear, None, outputs=5),
    "weight norm": Case(lambda: parametrizations.weight_norm(nn.Linear(8, 8)), None),
    "spectral norm": Case(lambda: parametrizations.spectral_norm(nn.Linear(8, 8)), None),
    "orthogonal": Case(lambda: parametrizations.orthogonal(nn.Linear(8, 8)), None),
    "old weight norm": Case(lambda: nn.utils.weight_norm(nn.Linear(8, 8)), None),
    "old spectral norm": Case(lambda: nn.utils.spectral_norm(nn.Linear(8, 8)), None),
    "pruned": Case(lambda: prune.l1_unstructured(nn.Linear(8, 8), "weight", 0.5), None),
    "standardized convolution": Case(lambda: StandardizedConvolution(2, 4, 3), None, (2, 5, 5)),
    "replicated": Case(lambda: Replicated(2, 4, 3), lambda: then(
        nn.ReplicationPad2d(1), nn.Conv2d(2, 4, 3)), (2, 4, 4)),
    "padded": Case(lambda: SamePadded(2, 4, 3), lambda: then(
        nn.ZeroPad2d((0, 2, 0, 2)), nn.Conv2d(2, 4, 3)), (2, 4, 4)),
    "causal": Case(lambda: Causal(2, 4, 3), lambda: then(
        nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(2, 4, 3)), (2, 6)),
    "channels last": Case(lambda: ChannelsLast(3, 3, 3), lambda: then(
        lambda x: x.mT, nn.Conv1d(3, 3, 3), lambda x: x.mT), (7, 3)),
    "cropped": Case(lambda: Cropped(2, 3, 3), lambda: then(
        nn.ConvTranspose1d(2, 3, 3), lambda x: x[..., 1:-1]), (2, 6)),
    "dilated by hand": Case(lambda: DilatedByHand(2, 3, 3), lambda: nn.Conv1d(2, 3, 3, padding=2, dilation=2),
                            (2, 6)),
    "weight norm of a convolution": Case(lambda: parametrizations.weight_norm(nn.Conv1d(2, 3, 3)), None,
                                         (2, 6)),
    "channels first": Case(lambda: ChannelsFirstNorm(4), lambda: then(
        lambda x: x.permute(0, 2, 3, 1), nn.LayerNorm(4), lambda x: x.permute(0, 3, 1, 2)), (4, 3, 3)),
    "channels first, square": Case(lambda: ChannelsFirstNorm(4), lambda: then(
        lambda x: x.permute(0, 2, 3, 1), nn.LayerNorm(4), lambda x: x.permute(0, 3, 1, 2)), (4, 4, 4)),
    "norm in float32": Case(lambda: NormInSingle(8), lambda: then(
        lambda x: x.float(), nn.LayerNorm(8), lambda x: x.double()), single=True),
    "norm about one": Case(lambda: NormShifted(8, bias=False), lambda: nn.LayerNorm(8, bias=False),
                           as_plain=raised),
    "norm by size": Case(lambda: NormBySize(8, bias=False), lambda: nn.RMSNorm(8, eps=1e-5)),
    "batch norm of the last axis": Case(lambda: LastAxisBatchNorm(4), lambda: then(
        lambda x: x.mT, nn.BatchNorm1d(4), lambda x: x.mT), (5, 4)),
    "Llama's norm": Case(lambda: Llama(8), lambda: nn.RMSNorm(8, eps=1e-6)),
    "Gemma's norm": Case(lambda: Gemma(8), lambda: nn.RMSNorm(8, eps=1e-6), as_plain=raised),
    "torch's norm about one": Case(lambda: GemmaOfTorch(8, eps=1e-6), lambda: nn.RMSNorm(8, eps=1e-6),
                                   as_plain=raised),
    "positions": Case(lambda: Positions(9, 8), lambda: nn.Embedding(9, 8), (6,), tokens=True,
                      call=lambda layer, x: (
                          layer(x % 2 if isinstance(layer, Positions) else positions(x % 2)))),
    "offset": Case(lambda: Offset(9, 8), lambda: nn.Embedding(9, 8), (6,), tokens=True,
                   call=lambda layer, x: layer(x) if isinstance(layer, Offset) else layer(x + 2)),
    "scaled table": Case(lambda: ScaledTable(9, 8), lambda: then(nn.Embedding(9, 8), lambda x: 3 * x), (6,),
                         tokens=True),
}


class Net(nn.Module):
    """Plain layers before and after the one in question."""

    def __init__(self, case: Case, layer: nn.Module) -> None:
        super().__init__()
        size = 8 if case.tokens else torch.Size(case.shape).numel()
        self.before, self.layer, self.after = nn.Linear(size, size), layer, nn.LazyLinear(3)
        if case.tokens:
            self.before = nn.Embedding(9, 8)
        self.case = case

    def forward(self, x: Tensor) -> Tensor:
        if self.case.tokens:
            state = torch.tanh(self.before(x) + self.case.call(self.layer, x)).mean(1)
        else:
            inside = torch.tanh(self.before(x)).unflatten(1, self.case.shape)
            state = torch.tanh(self.case.call(self.layer, inside)).flatten(1)
        return self.after(state)


def batch(case: Case, rows: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if case.tokens:
        return torch.randint(0, 7, (rows, *case.shape), generator=generator)
    return torch.randn(rows, torch.Size(case.shape).numel(), generator=generator, dtype=torch.float64)


def network(case: Case, make: Callable[[], nn.Module], rows: int) -> Net:
    """In float64, but for layers that are float32 by themselves."""
    torch.manual_seed(1)
    layer = make()
    torch.manual_seed(2)
    model = Net(case, layer)
    for part in (model.before, model.after) if case.single else (model,):
        part.double()
    with torch.no_grad():
        torch.manual_seed(3)
        model(batch(case, rows))
    model.train()
    return model


def pair(case: Case, rows: int) -> tuple[Net, Net | None]:
    """The network, and the same of plain modules with its weights."""
    own = network(case, case.own, rows)
    if case.plain is None:
        return own, None
    plain = network(case, case.plain, rows)
    with torch.no_grad():
        for mine, other in zip(plain.parameters(), as_plain(own), strict=True):
            mine.copy_(other)
    return own, plain


def weights(model: Net) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def as_plain(own: Net) -> list[Tensor]:
    """The weights as the plain network has them."""
    inside = {id(parameter) for parameter in own.layer.parameters()}
    return [(own.case.as_plain(parameter) if id(parameter) in inside else parameter).detach().clone()
            for parameter in own.parameters()]


def losses(model: Net, optimizer: torch.optim.Optimizer, rows: int, steps: int, first: int = 0,
           around: Callable[[Net], Any] | None = None) -> list[float]:
    """around: a context in which the gradient is computed."""
    found = []
    for step in range(first, first + steps):
        optimizer.zero_grad()
        torch.manual_seed(100 + step)  # of dropout
        if around is None:
            loss = deviation(model(batch(model.case, rows)), 0)
            loss.backward()
        else:
            with around(model):
                loss = deviation(model(batch(model.case, rows)), 0)
                loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def by_adamw(model: nn.Module, optimizer: EMSA) -> dict[str, int]:
    """Names of the parameters that are AdamW's, and their numbers."""
    names = {row.name for row in optimizer.stages().rows if row.maximized.startswith("AdamW")}
    return {name: number for number, (name, _) in enumerate(model.named_parameters()) if name in names}


def check_like(found: list[Tensor], expected: list[Tensor], start: list[Tensor], tolerance: float) -> None:
    scale = max((one - first).abs().max().item() for one, first in zip(expected, start, strict=True))
    assert scale > 0
    worst = max((one - other).abs().max().item() for one, other in zip(found, expected, strict=True))
    assert worst <= tolerance * scale, f"other steps than those of plain layers: {worst:.3g}, of {scale:.3g}"


def check(case: Case, rows: int, around: Callable[[Net], Any] | None = None) -> None:
    with said():
        own, plain = pair(case, rows)
        optimizer = EMSA(own, metric=Metric(moment_rows=None))
        path = losses(own, optimizer, rows, COMPARED)
        middle = as_plain(own)
        path += losses(own, optimizer, rows, STEPS - COMPARED, COMPARED)
        assert all(parameter.isfinite().all() for parameter in own.parameters())
        assert path[-1] < 0.95 * path[0]
        named = by_adamw(own, optimizer)
        assert all(name.startswith("layer.") for name in named), "plain layers have nothing to do with it"
        if plain is not None:
            reference, start = EMSA(plain, metric=Metric(moment_rows=None)), weights(plain)
            losses(plain, reference, rows, COMPARED, around=around)
            if {*by_adamw(plain, reference).values()} == {*named.values()}:
                check_like(middle, weights(plain), start, 1e-4 if case.single else 1e-6)
                return
    matrices = {f"layer.{name}" for name, _ in own.layer.named_parameters() if "bias" not in name}
    assert named.keys() >= matrices, "no such argmax: AdamW, and said so"


@pytest.mark.parametrize("rows", few([10, 40], 40))
@pytest.mark.parametrize("name", CASES)
def test_a_forward_pass_of_its_own(name: str, rows: int) -> None:
    check(CASES[name], rows)


def rounding(act: Callable[[Tensor], Tensor]) -> Callable[[Net], Any]:
    """A plain layer's weight rounded for the length of a pass: the gradient is that of the straight-through
    estimator."""
    @contextmanager
    def around(model: Net) -> Iterator[None]:
        weight = next(parameter for parameter in model.layer.parameters() if parameter.ndim == 2)
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.copy_(act(kept))
        yield
        with torch.no_grad():
            weight.copy_(kept)

    return around


@pytest.mark.parametrize("rows", [10, 40])
@pytest.mark.parametrize(("case", "act"), [
    (linear(FakeQuantized, None), on_grid),
    (linear(Ternarized, lambda x: F.layer_norm(x, (8,)), None), ternary),
], ids=["on a grid", "ternary"])
def test_straight_through_rounding(case: Case, act: Callable[[Tensor], Tensor], rows: int) -> None:
    check(case, rows, rounding(act))


@pytest.mark.parametrize("name", ["relu inside", "two arguments", "centred", "positions", "channels first",
                                  "replicated"])
def test_the_cases_functions_are_those_of_their_plain_networks(name: str) -> None:
    with said():
        own, plain = pair(CASES[name], 10)
    assert plain is not None
    x = batch(CASES[name], 10)
    assert torch.allclose(own(x), plain(x), rtol=1e-12, atol=1e-12)


# --- what becomes another layer after the optimizer was made ------------------------------------------------

LATE: dict[str, Callable[[nn.Linear], Any]] = {
    "weight norm": parametrizations.weight_norm, "spectral norm": parametrizations.spectral_norm,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "squared": lambda layer: nn.utils.parametrize.register_parametrization(layer, "weight", Do(torch.square)),
    "weight changed in forward": lambda layer: setattr(layer, "forward", types.MethodType(
        lambda self, x: F.linear(x, self.weight.tanh(), self.bias), layer)),
}


@pytest.mark.parametrize("first", [0, 3, 9])
@pytest.mark.parametrize("name", LATE)
def test_layers_that_change_under_the_optimizer(name: str, first: int) -> None:
    """Refused by name, or trained on by AdamW, or from then on left to whoever owns the new parameters, and
    said."""
    case = linear(nn.Linear, None)
    with said() as texts:
        model = network(case, case.own, 40)
        optimizer = EMSA(model)
        path = losses(model, optimizer, 40, first)
        LATE[name](model.layer)
        try:
            path += losses(model, optimizer, 40, STEPS, first)
        except ProblemError as error:
            assert "layer" in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            return
        named = by_adamw(model, optimizer)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert path[-1] < path[first]
    told = any("layer.weight" in text or "layer.parametrizations.weight" in text for text in texts)
    assert told or any(each.startswith(("layer.weight", "layer.parametrizations.weight")) for each in named)


@pytest.mark.parametrize("first", [0, 3, 9])
def test_a_forward_pass_that_scales_its_inputs_from_some_step_on(first: int) -> None:
    """As an instance's: the moments are of what the weight multiplies, before and after."""
    ends = []
    with said():
        for plainly in (False, True):
            case = linear(nn.Linear, None)
            scale = Do(lambda x: x)
            make = (lambda: then(scale, nn.Linear(8, 8))) if plainly else case.own  # noqa: B023
            model = network(case, make, 40)
            optimizer = EMSA(model)
            losses(model, optimizer, 40, first)
            if plainly:
                scale.act = lambda x: 5 * x
            else:
                model.layer.forward = types.MethodType(  # type: ignore[method-assign]
                    lambda self, x: F.linear(5 * x, self.weight, self.bias), model.layer)
            losses(model, optimizer, 40, COMPARED, first)
            if any(name.startswith("layer.") for name in by_adamw(model, optimizer)):
                return
            ends.append([parameter.detach().clone() for parameter in model.parameters()])
    check_like(ends[0], ends[1], [torch.zeros_like(each) for each in ends[1]], 1e-6)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.map, self.back = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.back(F.gelu(self.map(self.norm(x))))


def test_plain_layers_are_not_taken_for_others() -> None:
    """Nothing of a network of plain layers is AdamW's, whatever their containers do."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), Block(), Block(), nn.Linear(8, 3)).double()
    optimizer = EMSA(model, strict=True)
    for step in range(12):
        optimizer.zero_grad()
        deviation(model(torch.randn(24, 8, dtype=torch.float64)), step).backward()
        optimizer.step()
    assert not by_adamw(model, optimizer)
