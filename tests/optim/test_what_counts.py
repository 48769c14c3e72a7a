"""The moments of a step are those of the rows whose gradient is in .grad, of all of them and of no others.

Two runs from equal weights, one of them with something between its steps that leaves .grad as it is, end at
equal weights.
"""

import copy
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from optim_builders import said
from optim_kinds import NETS, Kind, assert_near, assert_same, controls, deviation, few, loss_of
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from pontryagin.optim import EMSA
from pontryagin.problem import Binary, ProblemError

Disturbance = Callable[[nn.Module, torch.optim.Optimizer, Tensor], None]
STEPS = 12


def flat(gradients: Any) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


# --- what leaves .grad alone leaves the steps alone ---------------------------------------------------------


def input_gradient(model: nn.Module, _: Any, x: Tensor) -> None:
    x.requires_grad_(True)
    torch.autograd.grad(model(x).logsumexp(-1).sum(), x)


def input_gradient_with_graph(model: nn.Module, _: Any, x: Tensor) -> None:
    x.requires_grad_(True)
    found, = torch.autograd.grad(model(x).logsumexp(-1).sum(), x, create_graph=True)
    torch.autograd.grad(found.square().sum(), x)


def backward_to_the_input(model: nn.Module, _: Any, x: Tensor) -> None:
    x.requires_grad_(True)
    model(x).square().mean().backward(inputs=[x])


def backward_through_frozen_weights(model: nn.Module, _: Any, x: Tensor) -> None:
    x.requires_grad_(True)
    model.requires_grad_(False)
    model(x).square().mean().backward()
    model.requires_grad_(True)


def parameter_gradient(model: nn.Module, _: Any, x: Tensor) -> None:
    torch.autograd.grad(model(x).square().mean(), list(model.parameters()))


def hessian_product(model: nn.Module, _: Any, x: Tensor) -> None:
    weights = list(model.parameters())
    gradient = flat(torch.autograd.grad(model(x).square().mean(), weights, create_graph=True))
    torch.autograd.grad(gradient @ torch.ones_like(gradient), weights, allow_unused=True)


def jacobian(model: nn.Module, _: Any, x: Tensor) -> None:
    torch.autograd.functional.jacobian(model, x)


def gradients_of_samples(model: nn.Module, _: Any, x: Tensor) -> None:
    """By vmap."""
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(those: dict[str, Tensor], one: Tensor) -> Tensor:
        return torch.func.functional_call(model, those, (one.unsqueeze(0),)).square().mean()

    torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)


def forward_alone(model: nn.Module, _: Any, x: Tensor) -> None:
    model(x)


def without_gradient(model: nn.Module, _: Any, x: Tensor) -> None:
    with torch.no_grad():
        model(x)
    with torch.inference_mode():
        model(x)


def evaluation(model: nn.Module, _: Any, x: Tensor) -> None:
    model.eval()
    model(x)
    with torch.no_grad():
        model(x)
    model.train()


def of_a_copy(model: nn.Module, _: Any, x: Tensor) -> None:
    other = copy.deepcopy(model)
    other(x).square().mean().backward()
    other.eval()(x)


LEAVING_GRADIENTS = [forward_alone, without_gradient, evaluation, of_a_copy, parameter_gradient,
                     hessian_product]
OF_INPUTS = [input_gradient, input_gradient_with_graph, backward_to_the_input,
             backward_through_frozen_weights, jacobian]
PLACES = ["before zero_grad", "after zero_grad", "before the step"]
CLEAR = PLACES[:2]
"""Where no gradient is waiting for a step."""


def trained(kind: Kind, disturb: Disturbance | None = None, places: list[str] = PLACES,
            steps: int = STEPS) -> Tensor:
    model = kind.model()
    optimizer = kind.optimizer(model)

    def act(place: str, step: int) -> None:
        if disturb is not None and place in places:
            disturb(model, optimizer, kind.strange(step))

    for step in range(steps):
        act("before zero_grad", step)
        optimizer.zero_grad()
        act("after zero_grad", step)
        loss_of(model, kind.inputs(step), step).backward()
        act("before the step", step)
        optimizer.step()
    return controls(model)


@lru_cache
def undisturbed(name: str) -> Tensor:
    return trained(NETS[name])


@pytest.mark.parametrize("name", few(NETS, "many rows", "convolutions", "tokens", "binary"))
@pytest.mark.parametrize("disturb", LEAVING_GRADIENTS)
def test_passes_that_leave_gradients_alone(name: str, disturb: Disturbance) -> None:
    assert_same(trained(NETS[name], disturb), undisturbed(name))


@pytest.mark.parametrize("name",
                         few([name for name in NETS if name != "tokens"], "rows", "convolutions", "binary"))
@pytest.mark.parametrize("disturb", OF_INPUTS)
def test_derivatives_to_the_inputs(name: str, disturb: Disturbance) -> None:
    assert_same(trained(NETS[name], disturb), undisturbed(name))


@pytest.mark.parametrize("name", ["rows", "many rows", "norms"])
def test_gradients_of_samples_by_vmap(name: str) -> None:
    assert_same(trained(NETS[name], gradients_of_samples), undisturbed(name))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("disturb", [input_gradient, input_gradient_with_graph, backward_to_the_input,
                                     parameter_gradient, hessian_product, forward_alone])
def test_at_every_place_of_the_loop(disturb: Disturbance, place: str) -> None:
    assert_same(trained(NETS["many rows"], disturb, [place]), undisturbed("many rows"))


def test_graphs_that_stay_alive() -> None:
    """Outputs that are kept, as for a log, and never propagated back."""
    kept = []

    def keep(model: nn.Module, _: Any, x: Tensor) -> None:
        kept.append(model(x))

    assert_same(trained(NETS["many rows"], keep), undisturbed("many rows"))


def test_a_pass_that_fails_half_way() -> None:
    def fail(model: nn.Module, _: Any, x: Tensor) -> None:
        state = model[0](x)  # type: ignore[index]
        with pytest.raises(RuntimeError):
            model[2](state[:, 1:])  # type: ignore[index]

    assert_same(trained(NETS["many rows"], fail), undisturbed("many rows"))


# --- batches that are dropped -------------------------------------------------------------------------------

DROPS: dict[str, Disturbance] = {
    "optimizer.zero_grad": lambda model, optimizer, x: optimizer.zero_grad(),
    "model.zero_grad": lambda model, optimizer, x: model.zero_grad(),
    "grad = None": lambda model, optimizer, x: [
        setattr(each, "grad", None) for each in model.parameters()],  # type: ignore
    "zeros": lambda model, optimizer, x: optimizer.zero_grad(set_to_none=False),
    "model's zeros": lambda model, optimizer, x: model.zero_grad(set_to_none=False),
    "grad.zero_": lambda model, optimizer, x: [
        each.grad.zero_() for each in model.parameters()],  # type: ignore
}


def dropping(drop: str) -> Disturbance:
    def disturb(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        model(x).square().mean().backward()
        DROPS[drop](model, optimizer, x)

    return disturb


@pytest.mark.parametrize("name", few(NETS, "many rows", "norms", "tokens", "binary"))
@pytest.mark.parametrize("drop", list(DROPS)[:4])
def test_dropped_batches(name: str, drop: str) -> None:
    assert_same(trained(NETS[name], dropping(drop), CLEAR), undisturbed(name))


@pytest.mark.parametrize("drop", DROPS)
def test_a_batch_that_takes_the_place_of_another_before_the_step(drop: str) -> None:
    """Backward, dropped, backward of another batch, step."""
    kind = NETS["many rows"]
    model = kind.model()
    optimizer = kind.optimizer(model)
    for step in range(STEPS):
        dropping(drop)(model, optimizer, kind.strange(step))
        loss_of(model, kind.inputs(step), step).backward()
        optimizer.step()
        DROPS[drop](model, optimizer, kind.strange(step))
    assert_same(controls(model), undisturbed("many rows"))


@pytest.mark.parametrize("name", ["many rows", "convolutions", "binary"])
@pytest.mark.parametrize("drop", list(DROPS)[:4])
def test_the_generators_pass_through_the_critic(name: str, drop: str) -> None:
    """A GAN: the generator's loss leaves gradients in the critic, which the critic's next turn drops."""
    kind, generators = NETS[name], []

    def pass_through(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        if not generators:
            torch.manual_seed(1)
            generator = nn.Sequential(nn.Linear(x[0].numel(), 8), nn.Tanh(), nn.Linear(8, x[0].numel())).to(x)
            generators.append((generator, EMSA(generator)))
        generator, its = generators[0]
        its.zero_grad()
        (-model(generator(x.flatten(1)).view_as(x)).square().mean()).backward()
        its.step()
        DROPS[drop](model, optimizer, x)

    assert_same(trained(kind, pass_through, CLEAR), undisturbed(name))


@pytest.mark.parametrize("where", ["before backward", "after half", "in the second forward"])
@pytest.mark.parametrize("name", few(["rows", "many rows", "norms", "binary"], "many rows", "binary"))
def test_closures_that_raise_and_are_called_again(name: str, where: str) -> None:
    kind = NETS[name]
    model = kind.model()
    optimizer = kind.optimizer(model)

    def failing() -> None:
        optimizer.zero_grad()
        loss = loss_of(model, kind.strange(0), 0)
        if where == "before backward":
            raise KeyError(where)
        loss.backward()
        if where == "in the second forward":
            model(kind.strange(1))
        raise KeyError(where)

    def good() -> None:  # with the loss steps would be bounded
        optimizer.zero_grad()
        loss_of(model, kind.inputs(step), step).backward()

    for step in range(STEPS):  # noqa: B007
        with pytest.raises(KeyError):
            optimizer.step(failing)
        optimizer.step(good)
    assert_same(controls(model), undisturbed(name))


# --- the same gradient in other ways ------------------------------------------------------------------------

Pass = Callable[[nn.Module, torch.optim.Optimizer, Kind, int], None]


def run(kind: Kind, backward: Pass, steps: int = STEPS, **options: Any) -> tuple[Tensor, Tensor]:
    """The controls at the start and at the end; the pass zeroes the gradients itself."""
    model = kind.model()
    optimizer, start = kind.optimizer(model, **options), controls(model)
    for step in range(steps):
        backward(model, optimizer, kind, step)
        optimizer.step()
    return start, controls(model)


def forward_first(model: nn.Module, optimizer: torch.optim.Optimizer, kind: Kind, step: int) -> None:
    loss = loss_of(model, kind.inputs(step), step)
    optimizer.zero_grad()
    loss.backward()


def forward_first_zeros(model: nn.Module, optimizer: torch.optim.Optimizer, kind: Kind, step: int) -> None:
    loss = loss_of(model, kind.inputs(step), step)
    model.zero_grad(set_to_none=False)
    loss.backward()


def backward_of_two_parts(model: nn.Module, optimizer: torch.optim.Optimizer, kind: Kind, step: int) -> None:
    """As pipelines do it: the graph is cut, the cut's gradient handed on."""
    optimizer.zero_grad()
    first, rest = model[0], model[1:]  # type: ignore[index]
    state = first(kind.inputs(step))
    cut = state.detach().requires_grad_(True)
    deviation(rest(cut), step).backward()
    state.backward(cut.grad)


@pytest.mark.parametrize("name", few(NETS, "many rows", "convolutions", "binary"))
@pytest.mark.parametrize("backward", [forward_first, forward_first_zeros])
def test_gradients_may_be_cleared_after_the_forward_pass(name: str, backward: Pass) -> None:
    assert_same(run(NETS[name], backward)[1], undisturbed(name))


@pytest.mark.parametrize("name", [name for name in NETS if name != "tokens"])
def test_a_graph_that_is_cut(name: str) -> None:
    assert_same(run(NETS[name], backward_of_two_parts)[1], undisturbed(name))


def micro_batches(model: nn.Module, optimizer: torch.optim.Optimizer, kind: Kind, step: int,
                  order: int = 1) -> None:
    optimizer.zero_grad()
    x, target = kind.inputs(step), torch.randn((kind.shape[0], 3),
                                               generator=torch.Generator().manual_seed(step + 500),
                                               dtype=torch.float64)
    for part, goal in list(zip(x.chunk(4), target.chunk(4), strict=True))[::order]:
        ((model(part) - goal).square().mean() * (len(part) / len(x))).backward()


def micro_batches_reversed(model: nn.Module, optimizer: torch.optim.Optimizer, kind: Kind, step: int) -> None:
    micro_batches(model, optimizer, kind, step, -1)


def forward_by_parts(model: nn.Module, optimizer: torch.optim.Optimizer, kind: Kind, step: int) -> None:
    """Several calls, one loss."""
    optimizer.zero_grad()
    deviation(torch.cat([model(part) for part in kind.inputs(step).chunk(4)]), step).backward()


def all_forwards_first(model: nn.Module, optimizer: torch.optim.Optimizer, kind: Kind, step: int) -> None:
    """The backward passes in the order of the forward passes, all after the last of these."""
    optimizer.zero_grad()
    x, target = kind.inputs(step), torch.randn((kind.shape[0], 3),
                                               generator=torch.Generator().manual_seed(step + 500),
                                               dtype=torch.float64)
    outputs = [model(part) for part in x.chunk(4)]
    for output, goal in zip(outputs, target.chunk(4), strict=True):
        ((output - goal).square().mean() * (len(goal) / len(x))).backward()


def two_losses_of_one_graph(model: nn.Module, optimizer: torch.optim.Optimizer, kind: Kind,
                            step: int) -> None:
    optimizer.zero_grad()
    output = model(kind.inputs(step))
    loss = deviation(output, step)
    (0.25 * loss).backward(retain_graph=True)
    (0.75 * loss).backward()


def two_losses_at_once(model: nn.Module, optimizer: torch.optim.Optimizer, kind: Kind, step: int) -> None:
    optimizer.zero_grad()
    loss = deviation(model(kind.inputs(step)), step)
    torch.autograd.backward([0.25 * loss, 0.75 * loss])


def a_penalty_of_the_weights_apart(model: nn.Module, optimizer: torch.optim.Optimizer, kind: Kind,
                                   step: int) -> None:
    """A second loss that no rows belong to, of length zero."""
    optimizer.zero_grad()
    loss_of(model, kind.inputs(step), step).backward()
    squares = [parameter.square().sum() for parameter in model.parameters()]
    (0 * sum(squares)).backward()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", few(NETS, "many rows", "convolutions", "tokens"))
@pytest.mark.parametrize("backward",
                         [micro_batches, micro_batches_reversed, forward_by_parts, all_forwards_first,
                                      two_losses_of_one_graph, two_losses_at_once,
                          a_penalty_of_the_weights_apart])
def test_one_gradient_in_several_parts(name: str, backward: Pass) -> None:
    start = controls(NETS[name].model())
    assert_near(run(NETS[name], backward)[1], undisturbed(name), start, 1e-6)


@pytest.mark.parametrize("backward", [micro_batches, two_losses_of_one_graph])
def test_a_batch_in_parts_while_gradients_are_zeros(backward: Pass) -> None:
    """Not None: zero_grad(set_to_none=False) between the steps."""
    kind = NETS["many rows"]

    def cleared(model: nn.Module, optimizer: torch.optim.Optimizer, kind: Kind, step: int) -> None:
        class Zeros:
            zero_grad = staticmethod(lambda: model.zero_grad(set_to_none=False))

        backward(model, Zeros, kind, step)  # type: ignore[arg-type]

    assert_near(run(kind, cleared)[1], undisturbed("many rows"), controls(kind.model()), 1e-6)


def sharpness_aware(of_a_copy: bool) -> Pass:
    """The gradient where a step uphill leads; the step uphill by a gradient of the model's own or of a
    copy."""

    def backward(model: nn.Module, optimizer: torch.optim.Optimizer, kind: Kind, step: int) -> None:
        optimizer.zero_grad()
        x = kind.inputs(step)
        other = copy.deepcopy(model) if of_a_copy else model
        loss_of(other, 3 * x if not kind.tokens else x, step).backward()
        uphill = [0.05 * each.grad / each.grad.norm()  # type: ignore[union-attr]
                  for each in other.parameters()]
        _shift(model, uphill, 1)
        optimizer.zero_grad()
        loss_of(model, x, step).backward()
        _shift(model, uphill, -1)

    return backward


@torch.no_grad()
def _shift(model: nn.Module, by: list[Tensor], sign: int) -> None:
    for parameter, change in zip(model.parameters(), by, strict=True):
        parameter.add_(change, alpha=sign)


@pytest.mark.parametrize("name", ["rows", "many rows", "convolutions", "norms"])
def test_two_passes_of_sharpness_aware_minimization(name: str) -> None:
    kind = NETS[name]
    assert_same(run(kind, sharpness_aware(False))[1], run(kind, sharpness_aware(True))[1])


class Parts(nn.Module):
    """Three parts; those that are named are computed again in the backward pass."""

    def __init__(self, again: str = "", how: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
        self.middle = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 8))
        self.last = nn.Sequential(nn.Tanh(), nn.Linear(8, 3))
        self.again, self.how = again.split(), how

    def forward(self, x: Tensor) -> Tensor:
        for name in ("first", "middle", "last"):
            part = getattr(self, name)
            x = self.how(part, x) if self.how and name in self.again else part(x)
        return x


RECOMPUTED = {
    "not reentrant": lambda part, x: checkpoint(part, x, use_reentrant=False),
    "not reentrant, to the end": lambda part, x: _to_the_end(part, x),
    "reentrant": lambda part, x: checkpoint(part, x, use_reentrant=True),
    "sequential": lambda part, x: checkpoint_sequential(part, 2, x, use_reentrant=False),
    "nested": lambda part,
    x: checkpoint(lambda y: checkpoint(part, y, use_reentrant=False), x, use_reentrant=False),
}


def _to_the_end(part: nn.Module, x: Tensor) -> Tensor:
    from torch.utils.checkpoint import set_checkpoint_early_stop

    with set_checkpoint_early_stop(False):
        return checkpoint(part, x, use_reentrant=False)


@pytest.mark.parametrize("rows", few([10, 32], 32))
@pytest.mark.parametrize("again", ["middle", "middle last", "first middle last"])
@pytest.mark.parametrize("how", RECOMPUTED)
def test_checkpointing(how: str, again: str, rows: int) -> None:
    if how == "reentrant" and "first" in again:
        pytest.skip("torch's reentrant checkpoints want an input with a gradient")
    plain, checkpointed = Kind(Parts, (rows, 6)), Kind(lambda: Parts(again, RECOMPUTED[how]), (rows, 6))
    assert_same(trained(checkpointed), trained(plain))


@pytest.mark.parametrize("how", ["not reentrant", "reentrant"])
def test_checkpointing_of_discrete_stages_and_of_micro_batches(how: str) -> None:
    options = {"admissible": {"middle.0": Binary()}, "flip_rate": 1.0, "lr": 0.1}
    plain = Kind(Parts, (20, 6), options=options)
    checkpointed = Kind(lambda: Parts("middle", RECOMPUTED[how]), (20, 6), options=options)
    assert_same(trained(checkpointed), trained(plain))
    assert_same(run(checkpointed, micro_batches)[1], run(plain, micro_batches)[1])


class InPlace(nn.Module):
    """What a layer has seen is overwritten after it, which autograd allows where it keeps a copy in
    bfloat16."""

    def __init__(self, layer: nn.Module, act: Callable[[Tensor], Any] | None) -> None:
        super().__init__()
        self.first, self.second, self.act = nn.Linear(6, 6), layer, act

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).float()
        if isinstance(self.second, nn.Conv1d):
            x = x.unsqueeze(1)
        y = self.second(x)
        if self.act is not None:
            self.act(x)
        return y.float()


@pytest.mark.parametrize("act",
                         [lambda x: x.zero_(), lambda x: x.mul_(-20), lambda x: x.copy_(torch.ones_like(x))],
                         ids=["zero_", "mul_", "copy_"])
@pytest.mark.parametrize("make", [lambda: nn.Linear(6, 3), lambda: nn.Linear(6, 3, bias=False),
                                  lambda: nn.Conv1d(1, 2, 3)],
                         ids=["linear", "no bias", "convolution"])
def test_inputs_that_are_overwritten_after_the_layer_under_autocast(make: Callable[[], nn.Module],
                                                                    act: Any) -> None:
    ends = []
    for chosen in (None, act):
        kind = Kind(lambda: InPlace(make(), chosen), (32, 6))  # noqa: B023
        model = kind.model(torch.float32)
        optimizer = kind.optimizer(model)
        for step in range(STEPS):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                output = model(kind.inputs(step, torch.float32))
            deviation(output, step).backward()
            optimizer.step()
        ends.append(controls(model))
    assert_near(ends[1], ends[0], controls(kind.model(torch.float32)), 0.02)


@pytest.mark.parametrize("period", few([2, 3, 4, 16], 3, 4))
def test_rows_that_repeat_with_a_period(period: int) -> None:
    """Every so many rows one of another kind, as a first token is; the order of rows within a batch means
    nothing."""

    def losses(shuffled: bool) -> list[float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))
        optimizer, generator, found = EMSA(model), torch.Generator().manual_seed(1), []
        for _ in range(STEPS):
            x = torch.randn(512 * period, 6, generator=generator)
            x[::period] = 1.0
            if shuffled:
                x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(2))]
            optimizer.zero_grad()
            loss = (model(x) - torch.tanh(x[:, :3])).square().mean()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    assert max(losses(False)) < 1.3 * max(losses(True))


# --- losses of derivatives ----------------------------------------------------------------------------------


def field(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)).double()


def points(step: int, count: int) -> Tensor:
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(step),
                      dtype=torch.float64).requires_grad_(True)


def slope(output: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(output.sum(), x, create_graph=True)[0]


def of_physics(model: nn.Module, x: Tensor, clear: Callable[[], None]) -> Tensor:
    output = model(x)
    clear()
    gradient = slope(output, x)
    bent = slope(gradient[:, :1], x)[:, :1]
    return (bent + output - torch.sin(3 * x[:, :1])).square().mean() + (gradient[:, 1:]
                                                                        - x[:, :1]).square().mean()


def of_a_gradient_penalty(model: nn.Module, x: Tensor, clear: Callable[[], None]) -> Tensor:
    output = model(x)
    clear()
    between = (x.detach() * 0.5 + 0.1).requires_grad_(True)
    penalty = (slope(model(between), between).norm(dim=1) - 1).square().mean()
    return (output - x[:, :1].detach()).square().mean() + 10 * penalty


def of_the_slope_alone(model: nn.Module, x: Tensor, clear: Callable[[], None]) -> Tensor:
    clear()
    return (slope(model(x), x) - 2).square().mean()


def of_the_slope_cleared_late(model: nn.Module, x: Tensor, clear: Callable[[], None]) -> Tensor:
    gradient = slope(model(x), x)
    clear()
    return (gradient - 2).square().mean()


@pytest.mark.parametrize("count", [12, 64])
@pytest.mark.parametrize("objective",
                         [of_physics, of_a_gradient_penalty, of_the_slope_alone, of_the_slope_cleared_late])
def test_losses_of_derivatives(objective: Callable[..., Tensor], count: int) -> None:
    model = field()
    optimizer, losses = EMSA(model), []
    for step in range(40):
        loss = objective(model, points(step, count), optimizer.zero_grad)
        loss.backward()
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        given = {name for name,
                 parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()}
        optimizer.step()
        assert {f"{n}.weight" for n in (0, 2, 4)} <= given
        assert {name for name,
                parameter in model.named_parameters() if not torch.equal(parameter, before[name])} >= given
        losses.append(loss.item())
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


# --- whatever has a gradient moves, or is named -------------------------------------------------------------


def dense(gradient: Tensor | None) -> Tensor:
    """Zero for none."""
    return torch.zeros(()) if gradient is None else gradient.to_dense()


def resting(model: nn.Module, make: Callable[[nn.Module], torch.optim.Optimizer],
            backward: Callable[[nn.Module, int], Any], steps: int = 6) -> tuple[list[str], list[float]]:
    """Names of parameters that stayed in some step despite a gradient, and were named nowhere; the losses."""
    stayed, losses = set(), []
    with said() as texts:
        optimizer = make(model)
        for step in range(steps):
            optimizer.zero_grad()
            loss = backward(model, step)
            losses.append(float(loss))
            before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
            optimizer.step()
            stayed |= {name for name, parameter in model.named_parameters()
                       if dense(parameter.grad).any() and torch.equal(parameter, before[name])}
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    return [name for name in sorted(stayed) if not any(name in text for text in texts)], losses


class Two(nn.Module):
    """Two layers; how the second one is used is the case's."""

    def __init__(self, use: Callable[[nn.Module, Tensor], Tensor],
                 second: Callable[[], nn.Module] | None = None) -> None:
        super().__init__()
        self.first, self.use = nn.Linear(6, 8), use
        self.second = nn.Linear(8, 8) if second is None else second()

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.second, torch.tanh(self.first(x)))


def by_a_norm(layer: nn.Module, x: Tensor) -> Tensor:
    return F.layer_norm(x, (8,), layer.weight, layer.bias)  # type: ignore[arg-type]


USES: dict[str, Any] = {
    "bias alone": (lambda layer, x: F.linear(x, layer.weight.detach(), layer.bias),),
    "weight alone": (lambda layer, x: F.linear(x, layer.weight),),
    "both by hand": (lambda layer, x: torch.addmm(layer.bias, x, layer.weight.t()),),
    "transposed": (lambda layer, x: F.linear(x, layer.weight.t(), layer.bias),),
    "called and by hand": (lambda layer, x: layer(x) + F.linear(x, layer.weight.t()),),
    "bias of a called one again": (lambda layer, x: layer(x).tanh() + layer.bias,),
    "penalty alone": (lambda layer, x: x + layer.weight.square().sum() + layer.bias.square().sum(),),
    "penalty beside": (lambda layer, x: layer(x) + 0.1 * layer.weight.abs().sum(),),
    "one row": (lambda layer, x: x * layer.weight[0],),
    "norm by hand": (by_a_norm, lambda: nn.LayerNorm(8)),
    "convolution by hand": (lambda layer, x: F.conv1d(x.unsqueeze(1), layer.weight, layer.bias).flatten(1),
                            lambda: nn.Conv1d(1, 2, 3)),
    "bias of a convolution": (lambda layer,
                              x: F.conv1d(x.unsqueeze(1), layer.weight.detach(), layer.bias).flatten(1),
                              lambda: nn.Conv1d(1, 2, 3)),
    "table by hand": (lambda layer, x: x + layer.weight[:4].sum(0), lambda: nn.Embedding(5, 8)),
    "table as a matrix": (lambda layer, x: x @ layer.weight.t(), lambda: nn.Embedding(5, 8)),
    "attention to another": (lambda layer, x: layer(x[None], 2 * x[None], 2 * x[None])[0],
                             lambda: nn.MultiheadAttention(8, 2)),
    "attention, own sizes": (lambda layer, x: layer(x[None], x[None], x[None])[0],
                             lambda: nn.MultiheadAttention(8, 2, kdim=8, vdim=8, add_bias_kv=True)),
    "bilinear": (lambda layer, x: layer(x, x), lambda: nn.Bilinear(8, 8, 3)),
    "bilinear, one input": (lambda layer, x: F.bilinear(x, x, layer.weight, layer.bias),
                            lambda: nn.Bilinear(8, 8, 3)),
    "recurrent": (lambda layer, x: layer(x[None])[0], lambda: nn.LSTM(8, 4, bidirectional=True)),
    "cell": (lambda layer, x: layer(x), lambda: nn.GRUCell(8, 8)),
    "PReLU": (lambda layer, x: layer(x), lambda: nn.PReLU(8)),
    "bag": (lambda layer, x: x + layer(torch.arange(4).view(2, 2)).sum(0), lambda: nn.EmbeddingBag(4, 8)),
    "sparse table": (lambda layer, x: x + layer(torch.tensor([1, 1, 2])).sum(0),
                     lambda: nn.Embedding(5, 8, sparse=True)),
    "table by frequency": (lambda layer, x: x + layer(torch.tensor([1, 1, 2])).sum(0),
                           lambda: nn.Embedding(5, 8, scale_grad_by_freq=True)),
    "instance norm": (lambda layer, x: layer(x.unsqueeze(1)).flatten(1),
                      lambda: nn.InstanceNorm1d(1, affine=True)),
    "adaptive softmax": (lambda layer, x: layer.log_prob(x),
                         lambda: nn.AdaptiveLogSoftmaxWithLoss(8, 12, [4])),
}
"""How a module is used, and which one if it is not a Linear."""


@pytest.mark.parametrize("rows", few([10, 32], 10))
@pytest.mark.parametrize("use", USES)
def test_whatever_has_a_gradient_moves_or_is_named(use: str, rows: int) -> None:
    kind = Kind(lambda: Two(*USES[use]), (rows, 6))

    def backward(model: nn.Module, step: int) -> Tensor:
        loss = loss_of(model, kind.inputs(0), 0)
        loss.backward()
        return loss

    left, losses = resting(kind.model(), kind.optimizer, backward, 12)
    assert not left
    assert losses[-1] < losses[0]


def assigned(model: nn.Module, step: int) -> Tensor:
    """Gradients that are computed apart and put into .grad."""
    kind = NETS["many rows"]
    loss = loss_of(model, kind.inputs(0), 0)
    for parameter, gradient in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters())),
                                   strict=True):
        parameter.grad = gradient
    return loss


def without_any_pass(model: nn.Module, step: int) -> Tensor:
    """Gradients of evolution strategies, or from another process."""
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return torch.tensor(0.0)


def by_vmap(model: nn.Module, step: int) -> Tensor:
    """Mean of per-sample gradients, as private training clips them."""
    kind = NETS["many rows"]
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    goal = torch.randn(32, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(those: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return (torch.func.functional_call(model, those, (x,)) - y).square().mean()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, kind.inputs(0), goal)
    for name, parameter in model.named_parameters():
        parameter.grad = found[name].mean(0)
    return (model(kind.inputs(0)) - goal).square().mean().detach()


def at_other_weights(model: nn.Module, step: int) -> Tensor:
    """A step of an inner loop, through which the gradient goes back to the weights."""
    kind = NETS["many rows"]
    named = dict(model.named_parameters())
    inner = loss_of(model, kind.inputs(1), 1)
    inside = torch.autograd.grad(inner, list(named.values()), create_graph=True)
    moved = {name: parameter - 0.1 * gradient for (name, parameter),
             gradient in zip(named.items(), inside, strict=True)}
    loss = deviation(torch.func.functional_call(model, moved, (kind.inputs(0),)), 0)
    loss.backward()
    return loss


@pytest.mark.parametrize("steps", [1, 12])
@pytest.mark.parametrize("backward", [assigned, without_any_pass, by_vmap, at_other_weights])
def test_gradients_that_no_backward_pass_of_the_model_made(backward: Callable[[nn.Module, int], Tensor],
                                                           steps: int) -> None:
    left, losses = resting(NETS["many rows"].model(), EMSA, backward, steps)
    assert not left
    if steps > 1 and backward is not without_any_pass:
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind",
                         few(["rows", "many rows", "convolutions", "norms", "tokens"], "many rows", "tokens"))
@pytest.mark.parametrize("first", [3, 9, 21])
def test_gradients_without_a_pass_after_steps_with_one(kind: str, first: int) -> None:
    net = NETS[kind]

    def backward(model: nn.Module, step: int) -> Tensor:
        if step >= first:
            return without_any_pass(model, step)
        loss = loss_of(model, net.inputs(step), step)
        loss.backward()
        return loss

    assert not resting(net.model(), net.optimizer, backward, first + 4)[0]


@pytest.mark.parametrize("parts", [["0.weight", "0.bias"], ["0.weight"], ["0.bias"], ["2.weight", "2.bias"],
                                   ["2.weight"]])
@pytest.mark.parametrize("first", few([1, 5, 21], 1, 21))
def test_parameters_that_are_unfrozen(parts: list[str], first: int) -> None:
    net = NETS["many rows"]
    model = net.model()
    named = dict(model.named_parameters())
    for name in parts:
        named[name].requires_grad_(False)

    def backward(model: nn.Module, step: int) -> Tensor:
        if step == first:
            model.requires_grad_(True)
        loss = loss_of(model, net.inputs(step), step)
        loss.backward()
        return loss

    assert not resting(model, EMSA, backward, first + 4)[0]
    assert not torch.equal(named[parts[0]], dict(net.model().named_parameters())[parts[0]])


@pytest.mark.parametrize("first", [1, 5, 21])
def test_layers_that_are_called_late_and_now_and_then(first: int) -> None:
    def use(layer: nn.Module, x: Tensor) -> Tensor:
        return layer(x) if layer.on else x  # type: ignore[operator]

    kind = Kind(lambda: Two(use), (32, 6))

    def backward(model: nn.Module, step: int) -> Tensor:
        model.second.on = step >= first and step % 3 != 0  # type: ignore[union-attr]
        loss = loss_of(model, kind.inputs(step), step)
        loss.backward()
        return loss

    assert not resting(kind.model(), EMSA, backward, first + 9)[0]


class Tied(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.table, self.first, self.second = nn.Embedding(7, 8), nn.Linear(8, 8), nn.Linear(8, 7)
        self.third = nn.Linear(8, 8)
        if how == "table and output":
            self.second.weight = self.table.weight
        elif how == "two layers":
            self.third.weight = self.first.weight
        elif how == "two layers, and biases":
            self.third.weight, self.third.bias = self.first.weight, self.first.bias
        elif how == "biases":
            self.third.bias = self.first.bias
        elif how == "one module twice":
            self.third = self.first

    def forward(self, tokens: Tensor) -> Tensor:
        x = torch.tanh(self.first(self.table(tokens).mean(1)))
        x = F.linear(x, self.first.weight.t()) if self.how == "transposed" else self.third(x)
        return self.second(torch.tanh(x))


@pytest.mark.parametrize("rows", few([6, 32], 32))
@pytest.mark.parametrize("how", ["table and output", "two layers", "two layers, and biases", "biases",
                                 "one module twice",
                                 "transposed"])
def test_tied_weights(how: str, rows: int) -> None:
    kind = Kind(lambda: Tied(how), (rows, 4), 7)

    def backward(model: nn.Module, step: int) -> Tensor:
        loss = loss_of(model, kind.inputs(0), 0)
        loss.backward()
        return loss

    left, losses = resting(kind.model(), EMSA, backward, 25)
    assert not left
    assert losses[-1] < 0.9 * losses[0]


def test_a_parameter_that_is_in_nobodys_group_stays() -> None:
    model = NETS["many rows"].model()
    start = controls(model)
    optimizer = EMSA(model, model[0].parameters())  # type: ignore[index]
    for step in range(3):
        optimizer.zero_grad()
        loss_of(model, NETS["many rows"].inputs(step), step).backward()
        optimizer.step()
    moved = controls(model) != start
    split = sum(parameter.numel() for parameter in model[0].parameters())  # type: ignore[index]
    assert moved[:split].all()
    assert not moved[split:].any()


def test_refusals_name_what_they_refuse() -> None:
    """A weight of a discrete set that is never called with inputs: it cannot be trained by AdamW."""
    options = {"admissible": {"second": Binary()}, "flip_rate": 1.0, "lr": 0.1}
    kind = Kind(lambda: Two(USES["weight alone"][0]), (32, 6), options=options)
    model = kind.model()

    def backward(model: nn.Module, step: int) -> Tensor:
        loss = loss_of(model, kind.inputs(step), step)
        loss.backward()
        return loss

    try:
        left, _ = resting(model, kind.optimizer, backward)
    except ProblemError as error:
        assert "second.weight" in str(error)  # noqa: PT017
    else:
        assert not left
