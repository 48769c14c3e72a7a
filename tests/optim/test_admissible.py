"""EMSA over admissible sets: inside at every step, resumes bitwise, refuses what it cannot take, and
learns."""

import io
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from optim_builders import Attention, images, loss_of, net, parameters, vectors, without_checked_types
from torch import Tensor, nn

from pontryagin.affine import VarianceProbe
from pontryagin.maximizer.grid_argmax import Pace, moved, quantile, worths
from pontryagin.optim import EMSA, Acceptance, Constraint
from pontryagin.problem import (
    Binary,
    Box,
    Codebook,
    KSparse,
    MatrixSet,
    NonNegative,
    ProblemError,
    Ternary,
    TwoFourSparse,
    UnitNormRows,
)
from pontryagin.problem.admissible import Grid, rows_by_name
from pontryagin.problem.admissible.by_name import sets_by_parameter

SETS: dict[str, MatrixSet] = {
    "binary": Binary(), "binary row": Binary("row"), "ternary": Ternary(0.3), "ternary row": Ternary("row"),
    "3 bits": Codebook(3), "box": Box(-0.1, 0.1), "non-negative": NonNegative(), "k": KSparse(2),
    "2:4": TwoFourSparse(),
    "sphere": UnitNormRows(),
}


def classifier(dtype: torch.dtype = torch.float32, width: int = 16, bias: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, width, bias=bias), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width, bias=bias),
        nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3, bias=bias), nn.BatchNorm1d(3)).to(dtype)


def blobs(seed: int, dtype: torch.dtype = torch.float32, count: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, 8, generator=torch.Generator().manual_seed(99))
    y = torch.randint(0, 3, (count,), generator=generator)
    return (centres[y] + 0.7 * torch.randn(count, 8, generator=generator)).to(dtype), y


def inside(model: nn.Module, optimizer: EMSA, request: object) -> bool:
    sets = sets_by_parameter(model, request)  # type: ignore[arg-type]
    named = dict(model.named_parameters())
    rows = rows_by_name(model)
    return all(bool(one.within(rows[name]).contains(rows[name].matrix(named[name].detach())))
               for name, one in sets.items())


def run(model: nn.Module, optimizer: EMSA, first: int, steps: int, check: Callable[[], bool] = lambda: True,
        dtype: torch.dtype = torch.float32) -> list[float]:
    losses = []
    for step in range(first, first + steps):
        x, y = blobs(step, dtype)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        assert check()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", SETS)
def test_every_control_lies_in_its_set_and_training_resumes_bitwise(name: str, dtype: torch.dtype) -> None:
    theta = SETS[name]
    whole, before, after = (classifier(dtype, bias=name == "ternary") for _ in range(3))
    one = EMSA(whole, constraint=theta)
    assert inside(whole, one, theta)
    expected = run(whole, one, 0, 9, lambda: inside(whole, one, theta), dtype)
    first = EMSA(before, constraint=theta)
    losses = run(before, first, 0, 4, dtype=dtype)
    buffer = io.BytesIO()
    torch.save({"model": before.state_dict(), "optimizer": first.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    second = EMSA(after, constraint=theta)
    after.load_state_dict(saved["model"])
    second.load_state_dict(saved["optimizer"])
    losses += run(after, second, 4, 5, lambda: inside(after, second, theta), dtype)
    assert losses == expected
    assert torch.equal(parameters(after), parameters(whole))


@pytest.mark.parametrize("theta", [Binary(), Ternary("row"), Codebook(3), Box(-0.3, 0.3), TwoFourSparse()],
                         ids=str)
def test_it_learns_without_other_weights(theta: MatrixSet) -> None:
    model = classifier(width=32)
    optimizer = EMSA(model, constraint=theta)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 120)
    losses = []
    for step in range(120):
        losses += run(model, optimizer, step, 1)
        schedule.step()
    assert sum(losses[-10:]) < 0.35 * sum(losses[:3]) / 3 * 10
    if not isinstance(theta, Box | TwoFourSparse):
        assert all(0 <= share < 0.1 for share in optimizer.moved().values())
        assert len(optimizer.moved()) == 3
        weights = [module.weight for module in model if isinstance(module, nn.Linear)]
        kept = [tensor for weight in weights for tensor in optimizer.state[weight].values()
                if tensor.shape == weight.shape]
        assert len(kept) == 3  # the running mean of the Hamiltonian's gradient, nothing else of this size


def test_convolutions_and_parts_of_a_model() -> None:
    model = net(torch.float32)
    optimizer = EMSA(model, constraint={"features": Ternary("row"), "head.0": Binary(),
                                        "head.3.weight": Box(-1, 1), "head.3.bias": NonNegative()})
    for step in range(6):
        optimizer.zero_grad()
        loss_of(model, *images(dtype=torch.float32, seed=step)).backward()
        optimizer.step()
        assert Ternary("row").contains(model.features[0].weight.flatten(1))
        assert Binary().contains(model.head[0].weight)
        assert (model.head[3].bias >= 0).all()
    assert set(optimizer.moved()) == {"features.0.weight", "head.0.weight"}
    maximized = {row.name: row.maximized for row in optimizer.stages().rows}
    assert maximized["head.0.weight"] == "argmax over Binary(scale=1.0)"
    assert maximized["features.0.bias"] == "AdamW"
    assert maximized["head.3.weight"].startswith("closed form")


def test_no_gradient_no_move() -> None:
    model = classifier()
    optimizer = EMSA(model, constraint=Ternary())
    before = parameters(model)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.grad = torch.zeros_like(module.weight)
    optimizer.step()
    assert torch.equal(parameters(model), before)
    model[0].requires_grad_(False)
    frozen = model[0].weight.clone()
    run(model, optimizer, 0, 3)
    assert torch.equal(model[0].weight, frozen)


@given(seed=st.integers(0, 10_000), grid=st.sampled_from([Grid(2, 1), Grid(1, 1), Grid(1, 3)]),
       exponent=st.floats(0, 1))
def test_the_step_is_the_elementwise_argmax(seed: int, grid: Grid, exponent: float) -> None:
    """With the rho that the quantile implies, an entry moves exactly where its move raises the elementwise
    model."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.tensor(grid.codes,
                         dtype=torch.float64)[torch.randint(0, len(grid.codes), (4, 6), generator=generator)]
    scale = 0.5 + torch.rand(4, 1, generator=generator, dtype=torch.float64)
    average = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    metric = (0.1 + torch.rand(1, 6, generator=generator, dtype=torch.float64)).pow(-exponent)
    weight = codes * scale
    worth = worths(weight, average, scale, metric, grid)
    least, _ = quantile(worth, Pace(0.2, torch.zeros((), dtype=torch.float64), 0))
    new, number = moved(weight, average, worth, least, scale, grid)
    step = grid.step * average.sign() * scale
    possible = (weight + step).abs() <= grid.limit * scale + 1e-9
    rho = 2 * least / (grid.step * scale.square())  # the penalty per row that this quantile stands for
    gain = average * step - 0.5 * rho * step.square() / metric
    expected = torch.where(possible & (gain > 1e-12), weight + step, weight)
    assert torch.allclose(new, expected)
    assert int(number) == int((new != weight).sum()) <= 0.2 * 24 + 1


def test_variances_are_streamed() -> None:
    rows, variance = 3 + 2 * torch.randn(2, 40, 5, dtype=torch.float64), VarianceProbe()
    for part in rows.split(13, dim=1):
        variance.add(part)
    taken = variance.take()
    assert taken is not None
    torch.testing.assert_close(taken.mean, rows.mean(1))
    torch.testing.assert_close(taken.variance, rows.var(1, correction=0))
    assert variance.take() is None


def test_few_moves_are_saved_up() -> None:
    worth, owed, total = torch.rand(10, 10), torch.zeros((), dtype=torch.float64), 0
    for step in range(100):
        least, owed = quantile(worth, Pace(0.003, owed, step))
        total += int((worth > least).sum())
    assert total == pytest.approx(30, abs=1)
    assert quantile(-worth, Pace(0.5, owed, 0))[0] == 0.0


NAMES = {
    "all": (Binary(), {"0.weight": Binary(), "3.weight": Binary(), "6.weight": Binary()}),
    "module": ({"3": Ternary()}, {"3.weight": Ternary()}),
    "parameter": ({"1.weight": NonNegative()}, {"1.weight": NonNegative()}),
    "pattern": ({"[03]": Box(-1, 1)}, {"0.weight": Box(-1, 1), "3.weight": Box(-1, 1)}),
    "the nearest": ({"*": Box(-1, 1), "3": Ternary(), "6.weight": Binary()},
                    {"0.weight": Box(-1, 1), "3.weight": Ternary(), "6.weight": Binary()}),
}


@pytest.mark.parametrize(("request_", "expected"), NAMES.values(), ids=NAMES)
def test_names(request_: object, expected: dict[str, MatrixSet]) -> None:
    assert sets_by_parameter(classifier(), request_) == expected  # type: ignore[arg-type]


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "unknown": (lambda: EMSA(classifier(), constraint={"feature": Ternary()}),
                "'feature' is neither a parameter nor a submodule, nor a pattern of either"),
    "no matrix": (lambda: EMSA(classifier(), constraint={"1": Ternary()}),
                  "'1' has no parameter with two axes or more"),
    "two patterns": (lambda: EMSA(classifier(), constraint={"[03]": Ternary(), "[3]": Binary()}),
                     "give 3.weight different sets; name the parameter itself"),
    "no set": (lambda: EMSA(classifier(), constraint={"3": 1}), "expected a set such as Binary"),
    "empty": (lambda: EMSA(classifier(), constraint={}), "or a mapping from names to sets"),
    "k": (lambda: EMSA(classifier(), constraint=KSparse(9)),
          r"admissible, 0.weight: KSparse\(k=9.* expected k <= 8"),
    "2:4": (lambda: EMSA(nn.Linear(6, 2), constraint=TwoFourSparse()),
            "admissible, weight: .* multiple of 4, found 6"),
    "norm": (lambda: EMSA(classifier(), constraint={"1.weight": Binary()}),
             "this parameter belongs to BatchNorm1d"),
    "embedding": (lambda: EMSA(Attention(), constraint={"table": Binary()}),
                  "this parameter belongs to Embedding"),
    "bypassed": (lambda: EMSA(Attention(), constraint=Ternary()),
                 "belongs to (no affine stage|MultiheadAttention|Embedding)"),
    "acceptance": (lambda: EMSA(classifier(), acceptance=Acceptance(), constraint=Binary()),
                   "an acceptance rule divides steps"),
    "flip rate": (lambda: EMSA(classifier(), constraint=Constraint(Binary(), flip_rate=-1.0)),
              "EMSA flip_rate: expected a number in"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(make: Callable[[], object], message: str) -> None:
    with without_checked_types(), pytest.raises(ProblemError, match=message):
        make()


def test_a_refused_request_leaves_the_model_alone() -> None:
    model = classifier()
    before = parameters(model)
    with pytest.raises(ProblemError):
        EMSA(model, constraint={"0": Binary(), "3": KSparse(99)})
    assert torch.equal(parameters(model), before)


def test_weights_changed_from_outside_are_noticed() -> None:
    model = classifier()
    optimizer = EMSA(model, constraint=Binary())
    run(model, optimizer, 0, 2)
    with torch.no_grad():
        model[3].weight[0, 0] = 0.5
    with pytest.raises(ProblemError, match=r"3.weight lies outside Binary\(scale=1.0\): something else"):
        run(model, optimizer, 2, 1)


def test_acceptance_with_projected_sets() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    optimizer = EMSA(model, acceptance=Acceptance(), constraint=Box(-0.2, 0.2))
    x, y = vectors(dtype=torch.float32)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, x, y)
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(8)]
    assert losses == sorted(losses, reverse=True)
    assert Box(-0.2, 0.2).contains(model[0].weight)


def test_a_row_that_nothing_asks_of_keeps_its_scale() -> None:
    """Behind equal codes of all classes a softmax gives a gradient of 0, or what rounding leaves of it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[1., 1, -1, 1], [1, -1, 1, 1], [1, 1, 1, -1]]))
    optimizer = EMSA(model, constraint={"0": Ternary("row"), "2": Binary()})
    before = model[0].weight.detach().clone()
    for seed in range(20):
        x = torch.randn(30, 5, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        F.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
        assert 0 < model[0].weight.grad[0].abs().max() < 1e-6  # type: ignore[union-attr]
        model[2].weight.grad.zero_()  # type: ignore[union-attr]
        optimizer.step()
    assert torch.equal(model[0].weight[0], before[0])
    assert not torch.equal(model[0].weight[1:], before[1:])
