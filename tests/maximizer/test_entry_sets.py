"""The argmax over sets of single entries, of dynamics that are not affine in the control."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from builders import assert_close, groups_of, normal
from pontryagin.hamiltonian import Penalties, augmented
from pontryagin.maximizer import (
    LBFGS,
    ByForm,
    CoordinateAscent,
    GaussNewton,
    GridSearch,
    Maximizer,
    SpectralGradient,
)
from pontryagin.problem import (
    L0,
    L1,
    Binary,
    Box,
    Codebook,
    ControlProblem,
    EntryBox,
    Finite,
    KSparse,
    NonNegative,
    ProblemError,
    Quadratic,
    RunningCost,
    SquaredError,
    Ternary,
    UnitNormRows,
    stage,
)
from pontryagin.problem.admissible import Admissible
from pontryagin.trajectory import StageGroup

F64 = torch.float64
BOTH = Penalties(2.0, 0.5, everywhere=True)


def wave(x: Tensor, theta: dict[str, Tensor]) -> Tensor:
    """Several maxima in every entry of u."""
    return x * theta["u"].sin() + (3 * theta["u"]).cos() * x.flip(1)


def group_with(theta: Admissible | None, *, entries: int = 2, cost: RunningCost | None = None, seed: int = 0,
               start: Tensor | None = None) -> StageGroup:
    start = normal(entries, seed=seed) if start is None else start
    stages = [stage(wave, {"u": start + 0.1 * n}, admissible=theta, running_cost=cost) for n in range(2)]
    problem = ControlProblem(stages, SquaredError(), normal(9, entries, seed=seed + 1),
                             normal(9, entries, seed=seed + 2))
    return groups_of(problem)[0]


def values(group: StageGroup, controls: Tensor, penalties: Penalties = BOTH) -> Tensor:
    found = []
    for n, control in enumerate(controls):
        data = tuple(part[n] for part in group.data)
        old = group.control[n]
        found.append(augmented(group.stage, control, data, penalties, old))  # type: ignore[arg-type]
    return torch.stack(found)


FINITE = {"switches": Finite((0, 1)), "three": Finite((-1.5, 0.2, 2.0)), "ternary": Ternary(0.7),
          "binary": Binary(),
          "grid": Codebook(3, 0.5)}


@pytest.mark.parametrize("penalties", [BOTH, Penalties(0.0, 0.0), Penalties(0.0, 0.0, rho_control=1.0)],
                         ids=str)
@pytest.mark.parametrize("name", FINITE)
def test_of_few_controls_the_best_is_found(name: str, penalties: Penalties) -> None:
    group = group_with({"u": FINITE[name]})
    found = GridSearch().model(group).maximize(penalties)
    one = FINITE[name]
    numbers = one.values if isinstance(one, Finite) else [code * one.scale for code in one.grid.codes]
    best = torch.stack([values(group, torch.tensor(both, dtype=F64).expand(2, 2), penalties)
                        for both in product(numbers, repeat=2)]).amax(0)
    assert_close(values(group, found, penalties), best, 1e-12)
    assert group.stage.admissible.contains(found).all()


INTERVALS: dict[str, Admissible] = {
    "box": {"u": Box(-1.0, 2.0)}, "half": {"u": NonNegative()},
    "entries": EntryBox((-1.0, -2.0), (0.5, 3.0)),
    "tight": EntryBox((-1e-6, 0.0), (1e-6, 0.0))}


@pytest.mark.parametrize("cost", [Quadratic(0.3), L1(0.5), L0(0.2)], ids=str)
@pytest.mark.parametrize("name", INTERVALS)
def test_of_an_interval_no_single_entry_can_do_better(name: str, cost: RunningCost | None) -> None:
    group = group_with(INTERVALS[name], cost=cost)
    found = GridSearch().model(group).maximize(BOTH)
    assert group.stage.admissible.contains(found).all()
    here = values(group, found)
    for entry in range(2):
        for number in torch.linspace(-3, 3, 61, dtype=F64):
            other = found.clone()
            other[:, entry] = number
            other = group.stage.admissible.project(other)
            assert (values(group, other) <= here + 1e-9).all()


def test_the_global_maximum_of_one_entry_beyond_a_valley() -> None:
    """Gauss-Newton and L-BFGS climb the hill they start on; the grid sees the other."""
    group = group_with(EntryBox((-4.0,), (4.0,)), entries=1, start=torch.tensor([1.2], dtype=F64))
    points = torch.linspace(-4, 4, 401, dtype=F64)
    best = torch.stack([values(group, point.expand(2, 1)) for point in points]).amax(0)
    found = values(group, GridSearch().model(group).maximize(BOTH))
    assert (found >= best - 1e-9).all()


@pytest.mark.parametrize("name", ["box", "half", "entries"])
def test_a_quadratic_over_a_box_has_one_maximum(name: str) -> None:
    """x + B u: exact by grids, by spectral steps, and in closed form by all combinations of active bounds."""
    b = normal(3, 2, seed=5)
    stages = [stage(lambda x, theta: x + theta["u"] @ b.mT, {"u": normal(2, seed=n)},
                    admissible=INTERVALS[name], running_cost=Quadratic(0.2)) for n in range(1)]
    (group,) = groups_of(ControlProblem(stages, SquaredError(), normal(7, 3), 3 * normal(7, 3, seed=1)))
    grid, spectral = (maximizer.model(group).maximize(BOTH)
                      for maximizer in (GridSearch(sweeps=200), SpectralGradient(400)))
    assert_close(grid, spectral, 1e-5)
    free = GaussNewton(1e-12).model(group_without_set(group)).maximize(BOTH)
    assert float(values(group, free)) >= float(values(group, grid)) - 1e-9
    for seed in range(60):
        other = group.stage.admissible.project(grid + normal(1, 2, seed=seed, scale=10.0 ** -(seed % 6)))
        assert float(values(group, other)) <= float(values(group, grid)) + 1e-12


def group_without_set(group: StageGroup) -> StageGroup:
    from dataclasses import replace

    from pontryagin.problem import RealSpace

    return replace(group, stage=replace(group.stage, admissible=RealSpace()))


@pytest.mark.parametrize("cost", [None, L1(0.05), L0(0.02)], ids=str)
@pytest.mark.parametrize("theta", [Finite((0, 1)), Finite((-0.5, 0.1, 0.6))], ids=str)
def test_finite_sets_of_affine_stages(theta: Finite, cost: RunningCost | None) -> None:
    """By coordinate ascent on the exact quadratic: no entry alone can do better, and nothing leaves the
    set."""
    linear = stage(nn.Linear(2, 2, bias=False, dtype=F64), admissible=theta, running_cost=cost)
    (group,) = groups_of(ControlProblem([linear], SquaredError(), normal(20, 2), normal(20, 2, seed=1)))
    assert isinstance(ByForm().choice(linear), CoordinateAscent)
    found = ByForm().model(group).maximize(BOTH)
    assert linear.admissible.contains(found).all()
    for entry in range(4):
        for number in theta.values:
            other = found.clone()
            other[0, entry] = number
            assert float(values(group, other)) <= float(values(group, found)) + 1e-12


CHOICES: list[tuple[Admissible | None, int, RunningCost | None, type]] = [
    (None, 3, None, GaussNewton), (None, 32, Quadratic(0.1), GaussNewton), (None, 33, None, LBFGS),
    (None, 3, L1(0.1), GridSearch), (None, 30, L1(0.1), LBFGS), ({"u": Box(-1, 1)}, 3, None, GridSearch),
    ({"u": Box(-1, 1)}, 30, None, SpectralGradient), ({"u": Finite((0, 1))}, 30, None, GridSearch),
    (EntryBox((0.0,) * 2, (1.0,) * 2), 2, None, GridSearch), ({"u": KSparse(1)}, 3, None, SpectralGradient),
    ({"u": Binary(0.5)}, 40, Quadratic(0.1), GridSearch),
    ({"u": UnitNormRows()}, 3, None, SpectralGradient), ({"u": Ternary("row")}, 3, None, SpectralGradient)]


@pytest.mark.parametrize(("theta", "entries", "cost", "kind"), CHOICES, ids=str)
def test_the_default_takes_sets_of_every_kind(theta: Admissible | None, entries: int,
                                              cost: RunningCost | None, kind: type[Maximizer]) -> None:
    group = group_with(theta, entries=entries, cost=cost)
    assert type(ByForm().choice(group.stage)) is kind
    found = ByForm().model(group).maximize(BOTH)
    assert group.stage.admissible.contains(found).all()
    assert (values(group, found) >= values(group, group.control) - 1e-12).all()


def test_an_unbounded_entry_is_followed_far() -> None:
    """The maximum lies 1e4 away."""
    one = stage(lambda x, theta: x + theta["u"], {"u": torch.zeros(1, dtype=F64)},
                admissible={"u": NonNegative()})
    (group,) = groups_of(ControlProblem([one], SquaredError(), normal(5, 1), 1e4 + normal(5, 1, seed=1)))
    found = GridSearch().model(group).maximize(Penalties(2.0, 0.0))
    exact = GaussNewton(1e-14).model(group_without_set(group)).maximize(Penalties(2.0, 0.0))
    assert_close(found, exact, 1e-7)


@pytest.mark.parametrize("make", [lambda: GridSearch(points=2), lambda: GridSearch(sweeps=0),
                                  lambda: SpectralGradient(0), lambda: Finite(()),
                                  lambda: Finite((1.0, torch.inf)),
                                  lambda: GridSearch().model(group_with({"u": KSparse(1)}))])
def test_refused(make: object) -> None:
    with pytest.raises(ProblemError, match=r"expected|takes sets of single entries"):
        make()  # type: ignore[operator]


def test_finite_sets_are_sorted_projected_and_exact() -> None:
    theta = Finite((1, 0, 1))
    assert theta == Finite((0.0, 1.0))
    found = theta.project(torch.tensor([[0.4, 0.6, 0.5, -7.0]]))
    assert found.tolist() == [[0.0, 1.0, 0.0, 0.0]]
    assert bool(theta.contains(found))
    assert not bool(theta.contains(found + 1e-7))
