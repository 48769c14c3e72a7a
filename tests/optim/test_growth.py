"""Probes of the states between refreshes: what is known follows them, and deep plain networks learn."""

from collections.abc import Callable
from math import isfinite
from statistics import median_low as median

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optim_builders import assert_close, mlp, train, vectors
from torch import Tensor, nn

from pontryagin.affine.variances import MeanVariance, VarianceProbe, growth, lag
from pontryagin.distributed.probes import variances_over_processes
from pontryagin.optim import EMSA, Metric, fading
from pontryagin.optim import emsa as emsa_module
from pontryagin.optim.schedule import STRETCHES, is_probe_due, stretched
from pontryagin.problem import NonFiniteError

seeds = st.integers(0, 10_000)


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[VarianceProbe]:
    """Those that see any rows."""
    found: list[VarianceProbe] = []
    add = VarianceProbe.add

    def seen(probe: VarianceProbe, rows: Tensor) -> None:
        if probe not in found:
            found.append(probe)
        add(probe, rows)

    monkeypatch.setattr(VarianceProbe, "add", seen)
    return found


def rows(groups: int, positions: int, inputs: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 + torch.randn(groups, positions, inputs, generator=generator, dtype=torch.float64)


def spread_of(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.mean(1)
    return mean, (x - mean.unsqueeze(1)).square().mean(1)


@given(seeds, st.integers(1, 4), st.integers(1, 3))
def test_a_probe_is_mean_and_variance_of_all_its_rows(seed: int, parts: int, groups: int) -> None:
    x, probe = rows(groups, 12, 5, seed), VarianceProbe()
    assert probe.take() is None
    for part in x.split([1, 2, 4, 5][:parts - 1] + [12 - sum([1, 2, 4, 5][:parts - 1])], 1):
        probe.add(part)
    probe.add(x[:, :0])
    found = probe.take()
    assert found is not None
    mean, variance = spread_of(x)
    assert_close(found.mean, mean)
    assert_close(found.variance, variance)
    assert found.count == 12
    assert probe.take() is None


@given(seeds, st.floats(1e-6, 1e6), st.booleans())
def test_the_known_variance_follows_up_at_once_and_down_slowly(seed: int, scale: float,
                                                               centred: bool) -> None:
    x = rows(2, 9, 4, seed) * scale
    mean, known = torch.ones(2, 4).double() * centred, torch.tensor([0.3, 5.0], dtype=torch.float64)
    expected = 0.85 * mean + 0.15 * x.mean(1) if centred else torch.zeros_like(mean)
    found = (x - (mean if centred else 0).unsqueeze(1) if centred else x).square().sum(2).mean(1)
    if centred:  # of the mixture of what was known and the batch, at its mean
        found = spread_of(x)[1].sum(1) + 0.85 * (x.mean(1) - mean).square().sum(1)
    factor = growth(known, mean, [MeanVariance(*spread_of(x), 9.0)], [2], centred)
    middle = torch.where(found > 1.25 * known, found / 1.25, known)
    middle = torch.where(known > 16 * found, torch.maximum(16 * found, known / 4), middle)
    assert_close(known * factor, 0.85 * middle + 0.15 * found)
    assert (known * factor * 1.25 >= found * (1 - 1e-12)).all()
    assert_close(mean, expected)


def test_what_was_not_seen_or_has_no_variance_stays() -> None:
    mean, known = torch.ones(4, 3), torch.tensor([2.0, 0.0, 2.0, 2.0])
    infinite = MeanVariance(torch.full((1, 3), torch.inf), torch.full((1, 3), torch.inf), 5.0)
    constant = MeanVariance(torch.ones(1, 3), torch.full((1, 3), 1 / 3), 5.0)
    unseen = MeanVariance(torch.full((1, 3), torch.nan), torch.full((1, 3), torch.nan), torch.nan)
    for none in (None, unseen):
        factor = growth(known, mean, [none, constant, infinite, constant], [1, 1, 1, 1], True)
        assert torch.equal(factor[:3], torch.ones(3))
        assert torch.equal(mean, torch.ones(4, 3))
        assert factor[3].item() == pytest.approx(0.85 + 0.15 / 2)
    assert torch.equal(lag(known, torch.tensor([1.0, 1.0, 10.0, torch.nan])),
                       torch.tensor([1.0, 1.0, 4.0, 1.0]))


def test_probes_come_in_each_of_the_first_steps_and_then_at_growing_distances() -> None:
    due = [step for step in range(1, 130) if is_probe_due(step)]
    assert due == [*range(1, 8), 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, *range(64, 130, 16)]


@given(st.integers(1, 20_000), st.sampled_from(STRETCHES))
def test_probes_of_calm_states_are_some_of_the_others_and_no_further_apart_than_a_sixteenth(
        step: int, stretch: int) -> None:
    if is_probe_due(step, stretch):
        assert is_probe_due(step)
    elif step < 64:
        assert not is_probe_due(step)
    reach = max(step // 16, 16 * stretch)
    assert any(is_probe_due(later, stretch) for later in range(step, step + reach + 1))


def test_each_calm_probe_doubles_the_distance_and_one_that_is_not_ends_it() -> None:
    found = [1]
    for one in (1.0, 1.1, 1.05, 1.1001, 1.0, torch.inf, torch.nan):
        found.append(stretched(found[-1], one))
    assert found == [1, 2, 4, 4, 1, 2, 1, 1]


def test_states_that_hardly_change_are_probed_less_often_until_they_grow(probes: list[VarianceProbe]) -> None:
    """Two layers, of which the later one's inputs become three times as large; the known variance follows
    soon after, and a resumed run probes in the same steps."""
    model = mlp().double()
    optimizer = EMSA(model, lr=1e-6, metric=Metric(refresh_budget=1e-9))
    x, y = vectors(40, seed=1)
    probed = []

    def batch(seed: int) -> tuple[Tensor, Tensor]:
        if seed == 600:
            with torch.no_grad():
                next(model.parameters()).mul_(3)
        probed.append(optimizer._stages.capture.is_on)
        return x, y

    train(model, optimizer, 560, batch, first=1)
    assert optimizer.param_groups[0]["probe_stretch"] == 4
    assert [n for n in range(384, 560) if probed[n - 1]] == [384, 448, 512]  # 512: a refresh too
    copied = mlp().double()
    copied.load_state_dict(model.state_dict())
    other = EMSA(copied, lr=1e-6, metric=Metric(refresh_budget=1e-9))
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["probe_stretch"] == 4
    train(model, optimizer, 100, batch, first=561)
    assert [n for n in range(561, 661) if probed[n - 1]] == [576, 640, 656]  # 640 sees that they grew


def known_trace(state: dict[str, Tensor], inputs: int) -> float:
    """Of the second moment that the metric is made of."""
    return float(state["values"].sum() + (inputs - state["basis"].shape[2]) * state["tail"].sum())


def scaled_batches(x: Tensor, y: Tensor, first_large: int, scale: float
                   ) -> Callable[..., tuple[Tensor, Tensor]]:
    return lambda seed: (x * (1 if seed < first_large else scale), y)


@pytest.mark.parametrize("inputs", [1, 5, 80])
@pytest.mark.parametrize(("first_large", "last"), [(5, 7), (4, 4)], ids=["probes", "a refresh"])
def test_the_known_trace_is_that_of_the_inputs(inputs: int, first_large: int, last: int) -> None:
    """Inputs become 10 times as large: in the same step the metric is theirs but for the bound. 80 inputs: a
    subspace."""
    model = nn.Sequential(nn.Linear(inputs, 3)).double()
    optimizer = EMSA(model, lr=0.0, metric=Metric(refresh_budget=1e-9))
    x = torch.randn(40, inputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = vectors(40)[1]
    variance = 100 * spread_of(x.unsqueeze(0))[1].sum().item()
    train(model, optimizer, last, scaled_batches(x, y, first_large, 10.0), first=1)
    state = optimizer.state[model[0].weight]
    # in steps 1, 2 and 4; a model of one input alone costs nothing
    assert inputs == 1 or int(state["refreshes"]) == 3
    assert variance / 1.25 * (1 - 1e-9) <= known_trace(state, inputs) <= 1.02 * variance
    if "moment" in state:
        assert_close(state["moment"].diagonal(dim1=1, dim2=2).sum(), state["values"].sum())


def test_after_an_outlier_the_trace_falls_again_soon() -> None:
    model = nn.Sequential(nn.Linear(5, 3)).double()
    optimizer = EMSA(model, lr=0.0, metric=Metric(refresh_budget=1e-9))
    x, y = vectors(40, seed=1)
    train(model, optimizer, 20, scaled_batches(x, y, 20, 1000.0), first=1)
    peak = known_trace(optimizer.state[model[0].weight], 5)
    train(model, optimizer, 80, lambda seed: (x, y), first=21)
    assert known_trace(optimizer.state[model[0].weight], 5) <= 1e-3 * peak


@pytest.mark.parametrize("many_rows", [True, False], ids=["polar", "by rows"])
@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_the_outputs_move_as_far_after_a_growth(many_rows: bool, exponent: float) -> None:
    """rho follows: the change of an output in a step stays about lr when inputs become 100 times as large."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3)).double()
    optimizer = EMSA(model, lr=1e-4, momentum=0.0, metric=Metric(refresh_budget=1e-9, exponent=exponent))
    x, y = vectors(40 if many_rows else 7, seed=1)
    moved = {}
    for step in range(1, 42):
        batch = x * (1 if step < 40 else 100)
        before = model(batch).detach()
        train(model, optimizer, 1, lambda seed, batch=batch: (batch, y), first=step)
        moved[step] = (model(batch) - before).square().mean().sqrt().item() / 1e-4
    assert (optimizer.state[model[0].weight]["rows"] >= 2) == many_rows
    assert moved[40] == pytest.approx(moved[39], rel=0.6)


def test_one_sample_without_an_axis_of_samples() -> None:
    """More positions than enter the moments, and more channels than samples do."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(10, 4, 3), nn.Flatten(0), nn.Linear(4 * 26 * 26, 3))
    optimizer = EMSA(model, metric=Metric(refresh_budget=1e-9))
    x = torch.randn(10, 28, 28)
    for _ in range(5):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_state_that_was_cleared_begins_anew() -> None:
    model = mlp().double()
    optimizer = EMSA(model, metric=Metric(refresh_budget=1e-9))
    train(model, optimizer, 6, lambda seed: vectors(12, seed=seed))
    optimizer.state.clear()
    losses = train(model, optimizer, 4, lambda seed: vectors(12, seed=seed), first=6)
    assert all(isfinite(loss) for loss in losses)


@pytest.mark.parametrize("how", ["zero_grad", "load_state_dict"])
def test_a_batch_that_was_dropped_leaves_no_trace(how: str) -> None:
    """Its gradients are zeroed, or the state from before it is loaded."""
    x, y = vectors(12, seed=50)
    results = []
    for dropped in (False, True):
        torch.manual_seed(0)
        model = mlp().double()
        optimizer = EMSA(model, metric=Metric(refresh_budget=1e-9))
        train(model, optimizer, 4, lambda seed: vectors(12, seed=seed))
        saved = optimizer.state_dict()
        if dropped:
            nn.functional.cross_entropy(model(1e4 * x), y).backward()
            if how == "load_state_dict":
                model.zero_grad()
                optimizer.load_state_dict(saved)
        model.zero_grad() if how == "load_state_dict" else optimizer.zero_grad()
        for seed in range(4, 7):
            later, labels = vectors(12, seed=seed)
            nn.functional.cross_entropy(model(later), labels).backward()
            optimizer.step()
            model.zero_grad()
        results.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_backward_pass_after_the_step_does_not_leak_into_a_later_probe() -> None:
    model = nn.Sequential(nn.Linear(5, 3)).double()
    optimizer = EMSA(model, metric=Metric(refresh_budget=1e-9))
    x, y = vectors(12, seed=1)
    train(model, optimizer, 7, lambda seed: (x, y), first=1)
    late = nn.functional.cross_entropy(model(50 * x), y)
    train(model, optimizer, 1, lambda seed: (x, y), first=8)
    late.backward()
    model.zero_grad()
    for _ in range(3):
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        model.zero_grad()
    assert known_trace(optimizer.state[model[0].weight], 5) < 3 * spread_of(x.unsqueeze(0))[1].sum()


def test_stages_on_several_devices_need_no_exchange_in_one_process() -> None:
    like = [torch.zeros(1, 3), torch.zeros(1, 3, device="meta")]
    assert variances_over_processes([None, None], lambda: like) == [None, None]


def trained(seed: int) -> tuple[float, float]:
    """Ten plain layers as torch initializes them, on digits: the loss at the end, and the largest of a batch
    on the way."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = torch.tensor(data.images, dtype=torch.float32)[:1024].flatten(1), torch.tensor(data.target)[:1024]
    x = (x - x.mean()) / x.std()
    torch.manual_seed(seed)
    layers = [part for _ in range(10) for part in (nn.Linear(64, 64), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    optimizer, generator, largest = EMSA(model), torch.Generator().manual_seed(seed), 0.0
    for _ in range(80):
        batch = torch.randint(0, 1024, (100,), generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        largest = max(largest, loss.item())
    with torch.no_grad():
        return nn.functional.cross_entropy(model(x), y).item(), largest


def test_a_deep_plain_network_learns_by_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals shrink from layer to layer at first, and known from refreshes alone they run away, where
    nothing bounds a step."""
    monkeypatch.setattr(fading, "REACH", 1e9)
    with_probes = [trained(seed) for seed in range(7)]
    monkeypatch.setattr(emsa_module, "is_probe_due", lambda *step: False)
    without = [trained(seed) for seed in range(7)]
    assert median(with_probes)[0] < 0.3 * median(without)[0]
    assert median(peak for _, peak in with_probes) < 5 < median(peak for _, peak in without)


def test_gradients_of_one_batch_of_a_reused_layer_count_once(probes: list[VarianceProbe]) -> None:
    """A layer called twice: one probe of the rows of both calls."""
    torch.manual_seed(0)
    layer = nn.Linear(5, 5).double()
    model = nn.Sequential(layer, nn.Tanh(), layer)
    optimizer = EMSA(model, metric=Metric(refresh_budget=1e-9))
    train(model, optimizer, 2, lambda seed: vectors(6, seed=seed))
    x = vectors(6, seed=9)[0]
    probes.clear()
    model(x).sum().backward()
    (probe,) = probes
    found = probe.take()
    both = torch.cat([x, layer(x).tanh()]).detach()
    assert found is not None
    assert_close(found.mean[0], both.mean(0))
    assert_close(found.variance[0], both.var(0, correction=0))


def test_no_probe_is_left_after_a_refused_batch(probes: list[VarianceProbe]) -> None:
    model = mlp().double()
    optimizer = EMSA(model, metric=Metric(refresh_budget=1e-9))
    train(model, optimizer, 2, lambda seed: vectors(12, seed=seed))
    x, y = vectors(12, seed=7)
    x[0, 0] = torch.nan
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    with pytest.raises(NonFiniteError, match="nothing has been changed"):
        optimizer.step()
    assert len(probes) == 2
    assert all(probe.take() is None for probe in probes)
