"""Maximizers over admissible sets: against enumeration of all of Theta, never worse than the elementwise
rule, always inside."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from builders import (
    assert_close,
    bend,
    conv_problem,
    groups_of,
    linear_problem,
    normal,
    split_problem,
    tanh_problem,
)
from pontryagin.hamiltonian import Penalties, augmented, measure
from pontryagin.maximizer import (
    LBFGS,
    ClosedForm,
    CoordinateAscent,
    Elementwise,
    MajorizedAscent,
    Maximizer,
    StageByStage,
)
from pontryagin.problem import (
    L0,
    L1,
    Binary,
    Box,
    Codebook,
    ControlProblem,
    DiscreteSet,
    KSparse,
    MatrixSet,
    NonNegative,
    ProblemError,
    Quadratic,
    RealSpace,
    RunningCost,
    SquaredError,
    Ternary,
    TwoFourSparse,
    UnitNormRows,
    stage,
)
from pontryagin.trajectory import StageGroup

STATE, BOTH, BASIC = Penalties(2.0, 0.0), Penalties(2.0, 0.7, everywhere=True), Penalties(0.0, 0.0)
SETS: dict[str, MatrixSet] = {
    "binary": Binary(), "binary 0.4": Binary(0.4), "binary row": Binary("row"), "ternary row": Ternary("row"),
    "3 bits": Codebook(3), "3 bits of 0.2": Codebook(3, 0.2), "box": Box(-0.5, 0.5),
    "non-negative": NonNegative(),
    "k": KSparse(2), "2:4": TwoFourSparse(), "sphere": UnitNormRows(),
}
COSTS: dict[str, RunningCost | None] = {"no cost": None, "L2": Quadratic(0.3), "L1": L1(0.2), "L0": L0(0.05)}
ELEMENTWISE, COORDINATE, MAJORIZED = Elementwise(), CoordinateAscent(20, exact_up_to=0), MajorizedAscent(40)


def problem(theta: MatrixSet | dict[str, MatrixSet] | None, cost: RunningCost | None = None,
            bias: bool = True, inputs: int = 4, outputs: int = 3, seed: int = 0,
            common: float = 1.0) -> ControlProblem:
    """Two equal linear stages and a third, in a set. The inputs have as much in common as wanted."""
    torch.manual_seed(seed)
    stages = []
    for _ in range(2):
        linear = nn.Linear(inputs, inputs, bias=bias, dtype=torch.float64)
        stages += [stage(linear, admissible=theta, running_cost=cost), stage(bend)]
    last = nn.Linear(inputs, outputs, bias=bias, dtype=torch.float64)
    mixing = normal(inputs, inputs, seed=seed + 7) + 1.0 if common else torch.eye(inputs, dtype=torch.float64)
    return ControlProblem([*stages, stage(last, admissible=theta, running_cost=cost)], SquaredError(),
                          normal(9, inputs, seed=seed + 8) @ mixing + 0.5, normal(9, outputs, seed=seed + 9))


def values(group: StageGroup, controls: Tensor, penalties: Penalties) -> Tensor:
    return torch.func.vmap(lambda control,
                           *data: augmented(group.stage, control, data, penalties))(controls, *group.data)


def values_of_many(group: StageGroup, controls: Tensor, penalties: Penalties) -> Tensor:
    """H~ (control, stage) of the same controls at every stage, by evaluating the stage."""
    def one(control: Tensor) -> Tensor:
        return values(group, control.expand(len(group.indices), -1), penalties)

    return torch.func.vmap(one)(controls)


def fits(maximizer: Maximizer, theta: MatrixSet | None, cost: RunningCost | None) -> bool:
    if isinstance(theta, UnitNormRows):
        return not isinstance(maximizer, CoordinateAscent) and not isinstance(cost, L0 | L1)
    return True


METHODS = {"elementwise": ELEMENTWISE, "coordinate": COORDINATE, "majorized": MAJORIZED,
           "exact": CoordinateAscent()}
PAIRS = [(theta, cost, bias) for n, theta in enumerate(SETS) for cost, bias in (
    (list(COSTS)[n % 4], True), (list(COSTS)[(n + 2) % 4], n % 3 == 0))]
CASES = [(method, *pair)
         for method in METHODS for pair in PAIRS if fits(METHODS[method], SETS[pair[0]], COSTS[pair[1]])]


@pytest.mark.parametrize(("method", "theta", "cost", "bias"), CASES)
def test_inside_and_never_lower(method: str, theta: str, cost: str, bias: bool) -> None:
    for group, penalties in product(groups_of(problem(SETS[theta], COSTS[cost], bias)), (STATE, BOTH)):
        model = METHODS[method].model(group)
        found = model.maximize(penalties)
        assert group.stage.admissible.contains(found).all()
        before, after = values(group, group.control, penalties), values(group, found, penalties)
        assert (after >= before - 1e-12).all()
        if method != "elementwise":
            least = values(group, ELEMENTWISE.model(group).maximize(penalties), penalties)
            assert (after >= least - 1e-10 * least.abs()).all()
        if method == "coordinate":
            assert_close(StageByStage(METHODS[method]).model(group).maximize(penalties), found, 1e-9)
        for ours, expected in zip(model.measure(found), measure(group, found), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-10)


def all_controls(group: StageGroup, theta: DiscreteSet) -> Tensor:
    """Every control of a discrete set with a fixed scale, the bias at its best for a state penalty alone."""
    form = group.stage.affine
    assert form is not None
    entries = form.input_features * form.output_features
    return torch.tensor(list(product(theta.grid.codes, repeat=entries)), dtype=torch.float64) * theta.scale


def best_of_all(group: StageGroup, theta: DiscreteSet, penalties: Penalties) -> Tensor:
    """The largest H~ over Theta, found by evaluating the stage."""
    return values_of_many(group, all_controls(group, theta), penalties).amax(0)


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize(("theta", "inputs"), [(Binary(0.5), 4), (Ternary(0.5), 3), (Codebook(3, 0.3), 2)],
                         ids=str)
def test_exact_where_claimed(theta: DiscreteSet, inputs: int, cost: str) -> None:
    """Against H~ evaluated at every control of Theta: 2^8, 3^6, 7^4 controls."""
    small = problem(theta, COSTS[cost], bias=False, inputs=inputs, outputs=2)
    group = groups_of(small)[-1]
    assert group.stage.affine is not None
    assert group.stage.affine.output_features == 2
    found = values(group, CoordinateAscent().model(group).maximize(STATE), STATE)
    assert_close(found, best_of_all(group, theta, STATE), 1e-10)


@given(seed=st.integers(0, 10_000), rho=st.floats(0.1, 20.0), costate=st.sampled_from([0.0, 0.5]))
@settings(max_examples=6)
def test_between_the_elementwise_rule_and_the_global_maximum(seed: int, rho: float, costate: float) -> None:
    theta, penalties = Ternary(0.5), Penalties(rho, costate, everywhere=True)
    group = groups_of(problem(theta, bias=False, inputs=3, outputs=2, seed=seed))[-1]
    least, found = (values(group, each.model(group).maximize(penalties), penalties)
                    for each in (ELEMENTWISE, COORDINATE))
    best = best_of_all(group, theta, penalties)
    assert (least - 1e-9 * least.abs() <= found).all()
    assert (found <= best + 1e-9 * best.abs()).all()


def test_correlated_inputs_count() -> None:
    """Over random stages coordinate ascent finds the global maximum far more often than the elementwise
    rule."""
    theta, hits = Binary(0.5), {"elementwise": 0, "coordinate": 0}
    for seed in range(10):
        group = groups_of(problem(theta, bias=False, inputs=4, outputs=2, seed=seed))[-1]
        best = best_of_all(group, theta, STATE)
        for name in hits:
            found = values(group, METHODS[name].model(group).maximize(STATE), STATE)
            hits[name] += int((found >= best - 1e-9 * best.abs()).all())
    assert hits["coordinate"] >= 6
    assert hits["coordinate"] >= hits["elementwise"] + 3, hits


@pytest.mark.parametrize("theta", [Binary("row"), Ternary("row"), Codebook(3)], ids=str)
def test_scales_of_rows_are_best_too(theta: DiscreteSet) -> None:
    """Every code vector of every row with scales on a fine grid: none is better than the enumeration."""
    group = groups_of(problem(theta, bias=False, inputs=3, outputs=1))[-1]
    found = values(group, CoordinateAscent().model(group).maximize(STATE), STATE)
    codes = torch.tensor(list(product(theta.grid.codes, repeat=3)), dtype=torch.float64)
    scales = torch.logspace(-3, 1, 60, dtype=torch.float64)
    tried = values_of_many(group, (scales[:, None, None] * codes).flatten(0, 1), STATE)
    assert (found >= tried.amax(0) - 1e-12).all()
    ascended = values(group, COORDINATE.model(group).maximize(STATE), STATE)
    assert ascended <= found + 1e-12
    assert ascended >= values(group, ELEMENTWISE.model(group).maximize(STATE), STATE) - 1e-12


@pytest.mark.parametrize(("cost", "penalties"), [(None, BOTH), (Quadratic(0.3), STATE)],
                         ids=["both", "state and L2"])
def test_over_all_matrices_it_is_the_closed_form(cost: RunningCost | None, penalties: Penalties) -> None:
    free, wide = (groups_of(problem(theta, cost, common=0.0))[-1] for theta in (None, Box(-1e6, 1e6)))
    expected = values(free, ClosedForm(0.0).model(free).maximize(penalties), penalties)
    for each in (CoordinateAscent(40), MajorizedAscent(150)):
        assert_close(values(wide, each.model(wide).maximize(penalties), penalties), expected, 1e-3)


@pytest.mark.parametrize(("theta", "cost"),
                         [(Box(-0.5, 0.5), "L1"), (NonNegative(), "no cost"), (RealSpace(), "L1")], ids=str)
def test_on_convex_sets_it_is_the_global_maximum(theta: MatrixSet | RealSpace, cost: str) -> None:
    """No point towards random members of the set is better: enough for a concave function."""
    group = groups_of(problem({"weight": theta}, COSTS[cost], common=0.0))[-1]  # type: ignore[dict-item]
    found = CoordinateAscent(60).model(group).maximize(BOTH)
    others = group.stage.admissible.project(found + normal(40, *found.shape, seed=1)).squeeze(1)
    tried = torch.cat([found + part * (others - found) for part in (1e-2, 0.3)])
    assert (values_of_many(group, tried, BOTH) <= values(group, found, BOTH) + 1e-6).all()


def test_thresholds_of_uncorrelated_inputs() -> None:
    """One sample per axis, so A is diagonal: soft and hard threshold and clipping, written out."""
    x, y = 2.0 * torch.eye(4, dtype=torch.float64), normal(4, 2, seed=3)

    def run(theta: MatrixSet | None, cost: RunningCost | None) -> tuple[Tensor, Tensor]:
        linear = nn.Linear(4, 2, bias=False, dtype=torch.float64)
        nn.init.zeros_(linear.weight)
        one = ControlProblem([stage(linear, admissible=theta, running_cost=cost)], SquaredError(), x, y)
        (group,) = groups_of(one)
        gradient = (group.next_costate[0].mT @ group.state[0]) / 4
        return Elementwise().model(group).maximize(STATE).view(2, 4), gradient

    h = STATE.rho_state * 1.0  # mean x_j^2 = 4 / 4
    found, gradient = run(None, L1(0.3))
    torch.testing.assert_close(found, gradient.sign() * (gradient.abs() - 0.3).clamp_min(0) / h)
    found, gradient = run(None, L0(0.2))
    torch.testing.assert_close(found, torch.where(gradient.square() / (2 * h) > 0.2, gradient / h, 0.0))
    found, gradient = run(Box(-0.2, 0.1), None)
    torch.testing.assert_close(found, (gradient / h).clamp(-0.2, 0.1))
    found, gradient = run(KSparse(1), None)
    assert (found != 0).sum(1).tolist() == [1, 1]
    assert torch.equal(found.abs().argmax(1), gradient.abs().argmax(1))


def test_the_sphere_of_rows_is_solved_exactly() -> None:
    """With one row and the true curvature diagonal: no direction on the sphere is better."""
    from pontryagin.maximizer.entrywise import SeparableCost, argmax

    curvature = torch.tensor([[[0.5, 2.0, 3.0]]], dtype=torch.float64)
    for slope in (normal(1, 1, 3, seed=1), torch.tensor([[[0.0, 0.1, 0.1]]], dtype=torch.float64)):
        found = argmax(UnitNormRows(), slope, curvature, SeparableCost(),
                       torch.ones(1, 1, 1, dtype=torch.float64))
        points = UnitNormRows().project(normal(20_000, 3, seed=2))
        best = ((slope[0] - 0.5 * curvature[0] * points) * points).sum(1).max()
        assert ((slope - 0.5 * curvature * found) * found).sum() >= best - 1e-9
        assert UnitNormRows().contains(found).all()


@pytest.mark.parametrize("theta", [Binary(), Ternary(0.5), Box(-1, 1)], ids=str)
def test_basic_maximum_principle_over_bounded_sets(theta: MatrixSet) -> None:
    """Without penalties the argmax is where the Hamiltonian's gradient points."""
    group = groups_of(problem(theta, bias=False))[-1]
    found = CoordinateAscent(exact_up_to=0).model(group).maximize(BASIC)
    gradient = (group.next_costate[0].mT @ group.state[0]).flatten()
    assert torch.equal(found[0].sign(), gradient.sign())
    assert found.abs().unique().numel() == 1


def test_sets_and_costs_on_biases() -> None:
    sets = {"weight": Ternary(0.5), "bias": Box(-0.1, 0.1)}
    for each in (ELEMENTWISE, COORDINATE, MAJORIZED):
        for group in groups_of(problem(sets, L1(0.1))):  # type: ignore[arg-type]
            found = each.model(group).maximize(BOTH)
            assert group.stage.admissible.contains(found).all()
            assert (values(group, found, BOTH) >= values(group, group.control, BOTH)).all()


@pytest.mark.parametrize("theta", [Ternary(0.5), Binary("row"), Box(-0.3, 0.3)], ids=str)
def test_split_steps_convolutions_and_perturbed_starts(theta: MatrixSet) -> None:
    for made in (split_problem(), linear_problem((4, 3)), conv_problem()):
        stages = [stage_in(replace(one, start=normal(one.size, seed=3)), theta) if one.affine else one
                  for one in made.stages]
        group = groups_of(replace(made, stages=stages))[0]
        moved = group.stage.admissible.project(group.control + normal(*group.control.shape, seed=4))
        for each in (ELEMENTWISE, COORDINATE, MAJORIZED):
            found = each.model(replace(group, start=moved)).maximize(BOTH)
            assert group.stage.admissible.contains(found).all()
            assert (values(group, found, BOTH) >= values(group, moved, BOTH) - 1e-12).all()


def stage_in(one: object, theta: MatrixSet) -> object:
    from pontryagin.problem import Stage
    from pontryagin.problem.admissible import admissible_set

    assert isinstance(one, Stage)
    inside = admissible_set(one.name, one.layout, theta)
    return replace(one, admissible=inside, start=inside.project(one.start))


def refusals() -> Sequence[tuple[str, Maximizer, StageGroup, Penalties, str]]:
    tanh = replace(tanh_problem(), stages=[stage_in(one, Binary()) for one in tanh_problem().stages])  # type: ignore[misc]
    return [
        ("not affine", COORDINATE, groups_of(tanh)[0], STATE,
         "CoordinateAscent needs a stage that is affine in its control"),
        ("no set", LBFGS(), groups_of(tanh)[0], STATE,
         r"LBFGS maximizes over R\^p, but .* use a maximizer made for"),
        ("sphere", COORDINATE, groups_of(problem(UnitNormRows()))[0], STATE,
         "cannot move one by one: use MajorizedAscent"),
        ("sparse bias", COORDINATE, groups_of(problem({"bias": KSparse(1)}))[0], STATE,
         "cannot move one by one"),
        ("sphere L1", MAJORIZED, groups_of(problem(UnitNormRows(), L1(0.2)))[0], STATE, "is taken with a"),
        ("no penalty", COORDINATE, groups_of(problem(NonNegative(), bias=False))[0], BASIC,
         "H has no maximum over NonNegative"),
        ("free bias", ELEMENTWISE, groups_of(problem(Binary()))[0], BASIC,
         "no maximum over the free bias without a state"),
    ]


REFUSALS = ["not affine", "no set", "sphere", "sparse bias", "sphere L1", "no penalty", "free bias"]


@pytest.mark.parametrize("name", REFUSALS)
def test_refused(name: str) -> None:
    maximizer, group, penalties, message = next(rest for first, *rest in refusals() if first == name)
    with pytest.raises(ProblemError, match=message):
        maximizer.model(group).maximize(penalties)  # type: ignore[attr-defined]


@pytest.mark.parametrize("maximizer", [CoordinateAscent, MajorizedAscent])
def test_refused_settings(maximizer: type) -> None:
    with pytest.raises(ProblemError, match="expected"):
        maximizer(0)
