"""What was found by attacking the optimizer from outside, each a kind that nothing else shows."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from optim_builders import parameters, train, vectors, without_checked_types
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from pontryagin.optim import EMSA, Metric
from pontryagin.problem import ProblemError


def steps(model: nn.Module, optimizer: EMSA, loss: Callable[[int], Tensor], count: int) -> None:
    for step in range(count):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()


@pytest.mark.parametrize("rows", [4, 64])
@pytest.mark.parametrize("faint", [1e-36, 1e-40, 1e-44])
def test_a_gradient_that_is_all_but_zero_and_then_zero(faint: float, rows: int) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)), torch.randn(rows, 6)
    optimizer = EMSA(model)
    steps(model, optimizer, lambda step: (faint if step < 3 else 0.0) * model(x).square().mean(), 8)
    resting = parameters(model)
    steps(model, optimizer, lambda step: model(x).square().mean(), 3)
    assert parameters(model).isfinite().all()
    assert not torch.equal(parameters(model), resting)


def test_a_state_is_loaded_again_and_again() -> None:
    """torch adds keys of its own to the defaults when it loads a state."""
    model = nn.Linear(5, 3).double()
    optimizer = EMSA(model)
    train(model, optimizer, 2, vectors)
    saved = copy.deepcopy(optimizer.state_dict())
    for _ in range(3):
        optimizer.load_state_dict(saved)
        train(model, optimizer, 1, vectors)
    fresh, same = EMSA(copy.deepcopy(model)), copy.deepcopy(optimizer)
    for other in (fresh, same):
        other.load_state_dict(copy.deepcopy(saved))
        assert other.param_groups[0]["steps"] == 2


@pytest.mark.parametrize("state", ["a path", None, []])
def test_what_is_no_state_at_all(state: object) -> None:
    optimizer = EMSA(nn.Linear(5, 3))
    message = r"expected the dictionary that state_dict\(\) gives, found"
    with without_checked_types(), pytest.raises(ProblemError, match=message):
        optimizer.load_state_dict(state)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["initial_lr", "name"])
def test_keys_that_others_put_into_groups(key: str) -> None:
    """A state saved before a scheduler was made is loaded after, as by learning rate finders."""
    model = nn.Linear(5, 3).double()
    optimizer = EMSA(model)
    train(model, optimizer, 2, vectors)
    saved = copy.deepcopy(optimizer.state_dict())
    optimizer.param_groups[0][key] = 0.03
    optimizer.load_state_dict(saved)
    train(model, optimizer, 2, vectors, first=2)
    assert optimizer.param_groups[0]["steps"] == 4


class Checkpointed(nn.Module):
    """A part whose calls name their arguments, computed again in the backward pass."""

    def __init__(self, part: str, again: bool) -> None:
        super().__init__()
        self.part, self.again, self.first = part, again, nn.Linear(6, 6)
        self.layer: nn.Module = {"attention": lambda: nn.MultiheadAttention(6, 2, batch_first=True),
                                 "bilinear": lambda: nn.Bilinear(6, 6, 6), "linear": lambda: nn.Linear(6, 6),
                                 "turned": lambda: Turned(6, 6), "cell": lambda: nn.GRUCell(6, 6)}[part]()
        self.last = nn.Linear(6, 3)

    def middle(self, x: Tensor) -> Tensor:
        if self.part == "attention":
            return torch.tanh(self.layer(x.unsqueeze(1), key=x.unsqueeze(1),
                                         value=x.unsqueeze(1))[0].squeeze(1))
        if self.part == "bilinear":
            return torch.tanh(self.layer(x, input2=x))
        if self.part == "cell":
            return torch.tanh(self.layer(x, hx=x.tanh()))
        return torch.tanh(self.layer(input=x) if self.part == "linear" else self.layer(x))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(checkpoint(self.middle, x, use_reentrant=False) if self.again else self.middle(x))


class Turned(nn.Module):
    """x W + b, as GPT-2's Conv1D: a stage by its gradient alone."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / 3)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


@pytest.mark.filterwarnings("ignore:EMSA trains")
@pytest.mark.parametrize("part", ["attention", "bilinear", "linear", "turned", "cell"])
def test_checkpointed_calls_that_name_their_arguments_or_have_to_be_verified(part: str) -> None:
    ends = []
    for again in (False, True):
        torch.manual_seed(0)
        model = Checkpointed(part, again).double()
        optimizer = EMSA(model)
        x = torch.randn(10, 6, dtype=torch.float64)
        steps(model, optimizer, lambda step, model=model, x=x: model(x * (1 + step)).square().mean(), 10)
        ends.append(parameters(model))
        by_adamw = {row.name for row in optimizer.stages().rows if row.maximized == "AdamW"}
        assert not [name for name in by_adamw if name.startswith("layer") and "out_proj" not in name]
    assert torch.allclose(*ends, rtol=1e-9, atol=1e-12)


MAKERS = {"script": torch.jit.script, "trace": lambda part: torch.jit.trace(part, torch.ones(1, 8))}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_scripted_parts(make: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(nn.Linear(5, 8), make(nn.Sequential(nn.Linear(8, 8), nn.Tanh())),
                              nn.Linear(8, 3))
        before = parameters(model)
        losses = train(model, EMSA(model), 20, lambda seed, dtype: vectors(30, dtype), dtype=torch.float32)
    assert losses[-1] < 0.7 * losses[0]
    assert (parameters(model) != before).all()


@pytest.mark.filterwarnings("ignore:EMSA trains")
@pytest.mark.parametrize("part", ["turned", "attention"])
def test_what_was_verified_is_known_again_after_the_state_was_cleared(part: str) -> None:
    torch.manual_seed(0)
    model, x = Checkpointed(part, again=False), torch.randn(8, 6)
    optimizer = EMSA(model)
    steps(model, optimizer, lambda step: model(x).square().mean(), 3)
    optimizer.state.clear()
    steps(model, optimizer, lambda step: model(x).square().mean(), 3)
    other = copy.deepcopy(model)
    resumed = EMSA(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(model, optimizer, lambda step: model(x).square().mean(), 5)
    steps(other, resumed, lambda step: other(x).square().mean(), 5)
    assert torch.equal(parameters(model), parameters(other))


class Squared(nn.Linear):
    """No affine map of its inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x * x + 1, self.weight, self.bias)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_verdicts_do_not_depend_on_the_scale_of_the_loss(scale: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Turned(6, 8), nn.Tanh(), Squared(8, 3))
    optimizer, x = EMSA(model), torch.randn(10, 6)
    with pytest.warns(UserWarning, match=r"something else.*\n.*\n.*2\.weight"):
        steps(model, optimizer, lambda step: scale * model(x).square().mean(), 2)
    methods = {row.name: row.maximized for row in optimizer.stages().rows}
    assert methods["0.weight"].startswith("closed form")
    assert methods["2.weight"] == "AdamW"


def test_what_a_look_has_settled_does_not_keep_the_hooks_on() -> None:
    """Of the maps that self-attention may be one is left, and a module that is none has none."""
    torch.manual_seed(0)
    attention, other = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), Squared(8, 3)
    model, x = nn.Sequential(attention, other), torch.randn(10, 4, 8)
    with pytest.warns(UserWarning, match="out_proj"):
        optimizer = EMSA(model, metric=Metric(refresh_budget=1e-6))
    with pytest.warns(UserWarning, match="something else"):
        steps(model, optimizer, lambda step: model(x).square().mean(), 8)
    assert not optimizer._stages.capture.is_on  # the ninth step neither refreshes nor probes
    steps(model, optimizer, lambda step: model(x).square().mean(), 1)
    assert optimizer._stages.capture.is_on  # the tenth probes


def test_a_gradient_of_zero_tells_nothing() -> None:
    """Upstream of a last layer that begins at 0."""
    model = nn.Sequential(Squared(6, 8), nn.Tanh(), nn.Linear(8, 3))
    nn.init.zeros_(model[2].weight)
    optimizer, x, y = EMSA(model), torch.randn(10, 6), torch.randn(10, 3)
    steps(model, optimizer, lambda step: (model(x) - y).square().mean(), 1)
    assert "velocity" not in optimizer.state[model[0].weight]
    with pytest.warns(UserWarning, match=r"something else.*\n.*\n.*0\.weight"):
        steps(model, optimizer, lambda step: (model(x) - y).square().mean(), 2)


def test_a_state_from_before_a_stage_was_found_to_be_none() -> None:
    class Late(nn.Linear):
        factor = 1.0

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight * self.factor, self.bias)

    model = nn.Sequential(Late(5, 3)).double()
    optimizer = EMSA(model, metric=Metric(refresh_budget=1e9))
    train(model, optimizer, 3, vectors)
    saved = copy.deepcopy(optimizer.state_dict())
    model[0].factor = 2.0  # type: ignore[union-attr, assignment]
    with pytest.warns(UserWarning, match=r"something else.*\n.*\n.*0\.weight"):
        train(model, optimizer, 3, vectors, first=3)
    optimizer.load_state_dict(saved)
    train(model, optimizer, 3, vectors, first=6)
    assert {row.maximized for row in optimizer.stages().rows} == {"AdamW"}


def test_pruned_before_the_first_step() -> None:
    model = nn.Sequential(Turned(5, 6), nn.Linear(6, 3)).double()
    optimizer = EMSA(model)
    prune.l1_unstructured(model[0], "weight", 0.5)
    with pytest.warns(UserWarning, match="since the optimizer was made"):
        train(model, optimizer, 4, vectors)


def test_modules_put_around_the_same_parameters() -> None:
    """As preparing a model for quantization does in mid-run."""
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    optimizer = EMSA(model)
    train(model, optimizer, 3, vectors)
    new = nn.Linear(5, 6).double()
    new.weight, new.bias = model[0].weight, model[0].bias  # type: ignore[assignment]
    model[0] = new
    with pytest.warns(UserWarning, match=r"modules have been replaced.*\n.*\n.*0\.weight"):
        train(model, optimizer, 20, vectors, first=3)


@pytest.mark.parametrize("shape", [(4, 9), (3, 4, 9)])
def test_one_image_without_an_axis_of_samples(shape: tuple[int, ...]) -> None:
    model = nn.InstanceNorm1d(4, affine=True)
    optimizer, x = EMSA(model), torch.randn(shape)
    steps(model, optimizer, lambda step: (model(x) - x.abs()).square().mean(), 4)
    assert parameters(model).isfinite().all()


def test_sparse_gradients_of_a_stage() -> None:
    torch.manual_seed(0)
    sparse, dense = nn.Embedding(7, 4), nn.Embedding(7, 4)
    dense.load_state_dict(sparse.state_dict())
    tokens = torch.tensor([1, 2, 2, 5])
    for model in (sparse, dense):
        optimizer = EMSA(model)
        for _ in range(4):
            optimizer.zero_grad()
            model(tokens).square().sum().backward()
            if model is sparse:
                model.weight.grad = model.weight.grad.to_sparse(1)
            optimizer.step()
    assert torch.equal(parameters(sparse), parameters(dense))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_rates_that_a_schedule_has_spoilt(value: float) -> None:
    model = nn.Linear(5, 3).double()
    optimizer = EMSA(model)
    train(model, optimizer, 1, vectors)
    before = parameters(model)
    optimizer.param_groups[0]["lr"] = value
    with pytest.raises(ProblemError, match="nothing has been changed; look at the schedule"):
        train(model, optimizer, 1, vectors)
    assert torch.equal(parameters(model), before)


def test_a_group_that_comes_between_backward_and_step() -> None:
    ends = []
    for between in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
        model[2].requires_grad_(False)
        optimizer = EMSA(model, model[0].parameters())
        x, y = vectors()
        F.cross_entropy(model(x), y).backward()
        if between:
            optimizer.add_param_group({"params": model[2].parameters()})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            optimizer.step()
        ends.append(parameters(model))
    assert torch.equal(*ends)


def test_two_modules_tied_by_their_weights_alone() -> None:
    """The stage is that of the first, whose bias is its own; sums over both calls are the weight's
    gradient."""
    torch.manual_seed(0)
    first, second = Turned(6, 6), Turned(6, 6)
    second.weight = first.weight
    model = nn.Sequential(first, nn.Tanh(), second).double()
    x = torch.randn(10, 6, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"AdamW: 2\.bias$"):
        optimizer = EMSA(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(model, optimizer, lambda step: model(x).square().mean(), 4)
    assert parameters(model).isfinite().all()
    assert {row.name: row.maximized for row in optimizer.stages().rows}["0.weight"].startswith("closed form")


@pytest.mark.parametrize("steps_before", [0, 1, 20])
def test_a_replaced_parameter_is_named_at_the_next_step(steps_before: int) -> None:
    """Also where no look is due, as after step 20."""
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    optimizer = EMSA(model)
    train(model, optimizer, steps_before, vectors)
    model[2] = nn.Linear(7, 3).double()
    before = parameters(model)
    with pytest.raises(ProblemError, match=r"2\.weight.* are not the model's any more"):
        train(model, optimizer, 1, vectors, first=steps_before)
    assert torch.equal(parameters(model), before)
