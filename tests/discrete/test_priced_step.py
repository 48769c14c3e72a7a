"""The ternary step with a price on non-zero weights: the argmax of its multipliers, the share it keeps, what
it refuses."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from pontryagin.maximizer import priced_argmax
from pontryagin.maximizer.grid_argmax import Pace
from pontryagin.maximizer.priced_argmax import shares
from pontryagin.optim import EMSA, Constraint
from pontryagin.problem import ProblemError
from pontryagin.problem.admissible import Binary, Codebook, Ternary

NOTHING = torch.zeros((), dtype=torch.float64)


def problem(seed: int, rows: int = 6, inputs: int = 9) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights a_i c_ij, the mean gradient, the scales (row, 1) and v_j^-1/2."""
    generator = torch.Generator().manual_seed(seed)
    scale = 0.5 + torch.rand(rows, 1, generator=generator, dtype=torch.float64)
    codes = torch.randint(-1, 2, (rows, inputs), generator=generator).double()
    average = torch.randn(rows, inputs, generator=generator, dtype=torch.float64)
    return codes * scale, average, scale, (0.2 + torch.rand(1, inputs, generator=generator,
                                                            dtype=torch.float64)).pow(-0.5)


def step(seed: int, share: float, density: float) -> tuple[Tensor, Tensor, Tensor, float, float]:
    weight, average, scale, metric = problem(seed)
    worth, filled = priced_argmax.priced(weight, average, scale, metric)
    leaving, emptied, _ = priced_argmax.thresholds(worth, filled, density, Pace(share, NOTHING, 0))
    new, number = priced_argmax.moved(weight, average, worth, filled, (leaving, emptied), scale)
    assert int(number) == int((new != weight).sum())
    return weight, new, average, leaving, emptied


@given(st.integers(0, 200), st.floats(0.05, 0.6), st.floats(0.1, 0.9))
@example(1, 0.5, 0.75)  # all that are 0 leave it
def test_is_the_argmax_of_the_priced_hamiltonian_at_its_multipliers(seed: int, share: float,
                                                                    density: float) -> None:
    """Entry by entry, over the codes that are at most one away, by enumeration; costs in units of the row."""
    weight, new, average, leaving, emptied = step(seed, share, density)
    _, _, scale, metric = problem(seed)
    least = 1e6  # in the place of no move at all, and of all of them
    leaving, emptied = (max(min(each, least), -least) for each in (leaving, emptied))
    half, price = (leaving + emptied) / 2, (leaving - emptied) / 2
    for (i, j), old in zip(torch.cartesian_prod(torch.arange(6), torch.arange(9)), weight.flatten(),
                           strict=True):
        a, m, root = scale[i, 0], average[i, j], 1 / metric[0, j]
        codes = [code for code in (-1.0, 0.0, 1.0) if abs(code - float(old / a)) < 1.5]
        values = [float(m * a * code - half * abs(code - old / a) * root - price * (code != 0) * root)
                  for code in codes]
        chosen = values[codes.index(round(float(new[i, j] / a)))]
        assert chosen >= max(values) - 1e-9


@given(st.integers(0, 200), st.floats(0.05, 0.6), st.floats(0.1, 0.9))
def test_moves_as_many_as_wanted_towards_the_share(seed: int, share: float, density: float) -> None:
    weight, new, *_ = step(seed, share, density)
    before, after = int((weight != 0).sum()), int((new != 0).sum())
    goal, wanted = density * weight.numel(), int(share * weight.numel())
    assert int((new != weight).sum()) <= wanted
    assert abs(after - goal) <= max(abs(before - goal), 1.0)
    if before >= 2 * goal:
        assert before - after == min(wanted, before)


def test_little_is_owed_until_it_is_a_whole_move() -> None:
    weight, average, scale, metric = problem(1)
    worth, filled = priced_argmax.priced(weight, average, scale, metric)
    owed, moves = NOTHING, 0
    for _ in range(30):
        *least, owed = priced_argmax.thresholds(worth, filled, 0.5, Pace(0.01, owed, 0))
        moves += int(priced_argmax.moved(weight, average, worth, filled, (least[0], least[1]), scale)[1])
    assert moves == int(30 * 0.01 * weight.numel())


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=5),
       st.floats(0.01, 1.0))
def test_shares_add_up(shapes: list[tuple[int, int]], density: float) -> None:
    found = shares(shapes, density)
    sizes = [rows * inputs for rows, inputs in shapes]
    assert sum(share * size for share,
               size in zip(found, sizes, strict=True)) == pytest.approx(density * sum(sizes))
    assert all(0 < share <= 1 for share in found)
    each = [share * size / sum(shape) for share, size, shape in zip(found, sizes, shapes, strict=True)]
    assert all(one == pytest.approx(max(each)) for one, share in zip(each, found, strict=True) if share < 1)


def test_weights_at_silent_inputs_go_first() -> None:
    weight, average, scale, metric = problem(2)
    average[:, :3] = 0.0
    # where there is a weight, the gradient is for it
    average[:, 3:] = weight[:, 3:].sign() * average[:, 3:].abs()
    worth, filled = priced_argmax.priced(weight, average, scale, metric)
    *least, _ = priced_argmax.thresholds(worth, filled, 0.1, Pace(0.05, NOTHING, 0))
    new, _ = priced_argmax.moved(weight, average, worth, filled, (least[0], least[1]), scale)
    assert not new[:, :3].any()
    assert torch.equal(new[:, 3:], weight[:, 3:])


@pytest.mark.parametrize("theta", [Ternary(), Ternary(0.5), Ternary("row")])
def test_training_reaches_the_share_and_stays_in_the_set(theta: Ternary) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 60), nn.BatchNorm1d(60), nn.Tanh(), nn.Linear(60, 5),
                          nn.BatchNorm1d(5))
    x = torch.randn(400, 40)
    y = (x @ torch.randn(40, 5)).argmax(1)
    optimizer = EMSA(model, constraint=Constraint(theta, density=0.2, flip_rate=1.0))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 - k / 200)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()
        assert all(theta.contains(layer.weight) for layer in (model[0], model[3]))
    for layer, wanted in zip((model[0], model[3]), shares([(60, 40), (5, 60)], 0.2), strict=True):
        assert abs(float((layer.weight != 0).float().mean()) - wanted) <= 0.02
    assert float((model(x).argmax(1) == y).float().mean()) > 0.7


def test_a_price_needs_a_ternary_weight() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    before = model[0].weight.clone()
    for theta in (Binary(), Codebook(3)):
        with pytest.raises(ProblemError,
                           match=r"density is for weights in Ternary\(\), but 0.weight lies in"):
            EMSA(model, constraint=Constraint({"0": theta}, density=0.1))
    for share in (0.0, -0.1, 1.5, float("nan")):
        with pytest.raises(ProblemError, match="share of the weights in"):
            EMSA(model, constraint=Constraint(Ternary(), density=share))
    assert torch.equal(model[0].weight, before)
