"""A layer of a user's own, by one call of `affine.register`: a LoRA pair z = W x + B A x with W frozen.

A and B are then stages of their own to EMSA, to its table and to the audit.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from builders import assert_close, normal
from pontryagin import affine
from pontryagin.audit import audit
from pontryagin.optim import EMSA, Metric
from pontryagin.problem import ProblemError, stage

BATCH = 12


class Lora(nn.Module):
    """W (output, input) frozen, A (rank, input), B (output, rank)."""

    def __init__(self, inputs: int, outputs: int, rank: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(outputs, inputs, seed=1), requires_grad=False)
        self.A = nn.Parameter(normal(rank, inputs, seed=2, scale=0.5))
        self.B = nn.Parameter(normal(outputs, rank, seed=3, scale=0.5))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.mT + self.scale * (x @ self.A.mT @ self.B.mT)


def lora_maps(module: Any) -> list[affine.AffineMap]:
    """B multiplies A x, and its costate is that of the output. A multiplies x, and its costate is B^T u, of
    other width than the output."""
    def inside(arguments: tuple[Any, ...], named: dict[str, Any], output: Any = None) -> Tensor | None:
        x = affine.first_argument(arguments, named)
        return None if x is None else (x @ module.A.mT).detach()

    down = affine.dense(module, "A", outputs=lambda u: module.scale * u @ module.B.detach())
    return [down, affine.dense(module, "B", inputs=inside, outputs=lambda u: module.scale * u)]


affine.register(Lora, lora_maps)


class Inherited(Lora):
    """With the forward of its parent."""


class Rewritten(Lora):
    """The same function in a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight + self.scale * self.B @ self.A)


class Different(Lora):
    """Another function."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.A.mT.square() @ self.B.mT.square()


class LoraLinear(nn.Linear):
    """As loralib has it: a subclass of a layer that is known, whose own weight and bias stay."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__(inputs, outputs, dtype=torch.float64)
        self.A, self.B = (nn.Parameter(normal(*shape, seed=4)) for shape in ((rank, inputs), (outputs, rank)))
        self.scale = 0.5
        self.requires_grad_(False)
        self.A.requires_grad_(True)
        self.B.requires_grad_(True)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.5 * (x @ self.A.mT @ self.B.mT)


affine.register(LoraLinear, lora_maps)


class Plain(nn.Module):
    """The function of Lora of layers that are known."""

    def __init__(self, other: Lora) -> None:
        super().__init__()
        rank, inputs = other.A.shape
        self.frozen = nn.Linear(inputs, len(other.B), bias=False)
        self.down, self.up = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, len(other.B), bias=False)
        for one, weight in ((self.frozen, other.weight), (self.down, other.A), (self.up, other.B)):
            one.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + self.up(self.down(x))


def network(kind: Callable[[int, int, int], nn.Module] = Lora) -> nn.Sequential:
    return nn.Sequential(kind(4, 6, 2), nn.Tanh(), kind(6, 3, 2))


def batch(step: int) -> tuple[Tensor, Tensor]:
    return normal(BATCH, 4, seed=100 + step) + 0.3, normal(BATCH, 3, seed=200 + step)


def train(model: nn.Module, optimizer: EMSA, steps: int) -> list[float]:
    losses = []
    for step in range(steps):
        x, y = batch(step)
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def emsa(model: nn.Module, **options: Any) -> EMSA:
    return EMSA(model, metric=Metric(moment_rows=None), **options)


def methods(optimizer: EMSA) -> dict[str, str]:
    return {row.name: row.maximized for row in optimizer.stages().rows}


@pytest.mark.parametrize("kind", [Lora, Inherited, Rewritten, LoraLinear])
@pytest.mark.parametrize("shape", [(7, 4), (3, 5, 4), (4,)])
def test_the_sum_of_u_and_x_is_the_gradient(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    module, x = kind(4, 6, 2), normal(*shape, seed=5)
    output = module(x)
    output.retain_grad()
    output.sin().sum().backward()
    for one in lora_maps(module):
        assert one.outputs is not None
        rows, costates = one.rows(one.inputs((x,), {}, output)), one.outputs(output.grad)
        gradient = module.get_parameter(one.weight).grad
        assert gradient is not None
        assert_close(one.shaped(costates.mT @ rows), gradient, 1e-12)


@pytest.mark.parametrize("kind", [Lora, Inherited, Rewritten])
def test_emsa_trains_it_as_the_same_function_of_plain_layers(kind: type[Lora]) -> None:
    model, plain = network(kind), network(lambda *sizes: Plain(kind(*sizes)))
    optimizer, reference = emsa(model), emsa(plain)
    frozen = model[0].weight.clone()
    assert train(model, optimizer, 30) == pytest.approx(train(plain, reference, 30), rel=1e-9)
    for number in (0, 2):
        assert_close(model[number].A.detach(), plain[number].down.weight.detach(), 1e-8)
        assert_close(model[number].B.detach(), plain[number].up.weight.detach(), 1e-8)
    assert torch.equal(model[0].weight, frozen)


def test_the_table_lists_both() -> None:
    model = network()
    optimizer = emsa(model)
    train(model, optimizer, 1)
    found = [(row.name, row.kind, row.outputs, row.inputs) for row in optimizer.stages().rows]
    assert found == [("0.A", "Lora", 2, 4), ("0.B", "Lora", 6, 2),
                     ("2.A", "Lora", 2, 6), ("2.B", "Lora", 3, 2)]
    assert set(methods(optimizer).values()) == {"closed form, full metric"}


def test_moments_are_those_of_what_each_multiplies() -> None:
    module = Lora(4, 6, 2)
    optimizer, x, before = emsa(module), batch(0)[0], module.A.detach().clone()
    module(x).square().mean().backward()
    optimizer.step()
    for parameter, rows in ((module.A, x), (module.B, x @ before.mT)):
        assert_close(optimizer.state[parameter]["moment"][0], rows.mT @ rows / BATCH, 1e-12)


def test_where_b_begins_at_zero_a_waits_until_a_costate_comes() -> None:
    """As adapters begin: the gradient of A is 0, which tells nothing of it."""
    model = network()
    for number in (0, 2):
        nn.init.zeros_(model[number].B)
    optimizer = emsa(model)
    start = model[0].A.detach().clone()
    train(model, optimizer, 1)
    assert torch.equal(model[0].A, start)
    assert {name: method for name, method in methods(optimizer).items() if method != "AdamW"}.keys() == {
        "0.B", "2.B"}
    losses = train(model, optimizer, 60)
    assert "AdamW" not in methods(optimizer).values()
    assert losses[-1] < losses[0]


def test_a_forward_that_computes_something_else_is_found_out() -> None:
    model = network(Different)
    optimizer = emsa(model)
    with pytest.warns(UserWarning, match=r"something else than W x \+ b(.|\n)*0\.A, 0\.B, 2\.A, 2\.B"):
        train(model, optimizer, 1)
    assert set(methods(optimizer).values()) == {"AdamW"}
    model = network(Different)
    optimizer = emsa(model, strict=True)
    with pytest.raises(ProblemError, match=r"strict: .*0\.A"):
        train(model, optimizer, 1)


class Mistaken(Lora):
    """Registered below with the wrong costate of A."""


def mistaken_maps(module: Mistaken) -> list[affine.AffineMap]:
    down, up = lora_maps(module)
    return [replace(down, outputs=lambda u: u.reshape(1, -1, u.shape[-1])[..., :2]), up]


affine.register(Mistaken, mistaken_maps)


def test_a_registration_that_is_wrong_is_found_out_by_the_first_look() -> None:
    model = network(Mistaken)
    optimizer = emsa(model)
    with pytest.warns(UserWarning, match=r"Trained by AdamW: 0\.A, 2\.A"):
        train(model, optimizer, 1)
    assert [name for name, method in methods(optimizer).items() if method != "AdamW"] == ["0.B", "2.B"]


def test_in_a_subclass_of_a_layer_that_is_known() -> None:
    """Its own map is replaced by those of the class, and what is frozen is no one's."""
    model = network(LoraLinear)
    optimizer = emsa(model)
    train(model, optimizer, 2)
    assert methods(optimizer) == dict.fromkeys(("0.A", "0.B", "2.A", "2.B"), "closed form, full metric")


def test_the_audit_sees_both() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = audit(model, "squared-error", [batch(step) for step in range(4)], sets=("int8", "ternary"))
    assert sorted(one.name for one in found.stages) == ["0.A", "0.B", "2.A", "2.B"]
    for one in found.stages:
        for each in one.restrictions:
            assert each.true is not None
            assert each.predicted == pytest.approx(each.true, rel=0.5, abs=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_their_product_is_no_affine_control() -> None:
    assert stage(Lora(4, 6, 2)).affine is None


class Kernel(nn.Module):
    """z = K x + o, under names that say nothing."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(normal(outputs, inputs))
        self.offset = nn.Parameter(normal(outputs, seed=1))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.kernel.mT + self.offset


class Fused(Kernel):
    """In a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.offset, x, self.kernel.mT)


class Equalized(Kernel):
    """W times a number, so that u x^T is not the gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ (2 * self.kernel).mT + self.offset


affine.register(Kernel, lambda module: [affine.dense(module, "kernel", "offset")])


@pytest.mark.parametrize(("kind", "is_stage"), [(Kernel, True), (Fused, True), (Equalized, False)])
@pytest.mark.filterwarnings("ignore:EMSA trains")
def test_an_affine_map_in_a_subclass_with_its_own_forward(kind: type[Kernel], is_stage: bool) -> None:
    model = nn.Sequential(kind(4, 6), nn.Tanh(), kind(6, 3))
    plain = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    for number in (0, 2):
        plain[number].weight = nn.Parameter(model[number].kernel.detach().clone())
        plain[number].bias = nn.Parameter(model[number].offset.detach().clone())
    optimizer = emsa(model)
    losses = train(model, optimizer, 20)
    if is_stage:
        assert losses == pytest.approx(train(plain, emsa(plain), 20), rel=1e-9)
    assert ("AdamW" in methods(optimizer).values()) is not is_stage
