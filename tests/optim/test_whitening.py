"""The second moment of what steps do to the outputs of a stage, and its inverse root."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pontryagin.affine import factorize
from pontryagin.errors import NonFiniteError
from pontryagin.optim import EMSA, Metric
from pontryagin.optim.stage import AffineStage
from pontryagin.optim.whitening import WIDEST, inverse_root, seen


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment_of(outputs: int, seed: int) -> Tensor:
    """Of stages whose outputs move together, those of the last one not at all."""
    change = drawn(2, outputs, 3, seed=seed)
    change[:, -1] = 0
    return change @ change.mT


@given(outputs=st.integers(2, 9), seed=st.integers(0, 99))
def test_the_inverse_root_is_one(outputs: int, seed: int) -> None:
    moment = moment_of(outputs, seed)
    root, mean = inverse_root(moment), moment.diagonal(dim1=1, dim2=2).mean(1)
    damped = moment + 0.1 * mean[:, None, None] * torch.eye(outputs)
    torch.testing.assert_close(root @ damped @ root, torch.eye(outputs).double().expand(2, -1, -1),
                               atol=1e-9, rtol=0)


@given(exponent=st.sampled_from([0.0, 0.25, 0.5, 0.7, 1.0]), bias=st.booleans(), seed=st.integers(0, 99),
       scale=st.sampled_from([1e-20, 1.0, 1e20]))
def test_it_is_that_of_the_changes_of_outputs(exponent: float, bias: bool, seed: int, scale: float) -> None:
    """E dz dz^T of dz = dW x + g over centred rows x, in the damped metric, but for its size."""
    rows, right, mean_change = drawn(2, 30, 4, seed=seed), drawn(2, 5, 4, seed=seed + 1), drawn(2, 5)
    moment = rows.mT @ rows / 30
    damped = moment + 0.1 * moment.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(4)
    values, vectors = torch.linalg.eigh(damped)
    change = right @ (vectors * values.unsqueeze(1)**-exponent) @ vectors.mT
    expected = change @ damped @ change.mT
    if bias:
        expected = expected + mean_change.unsqueeze(2) * mean_change.unsqueeze(1)
    expected = expected / expected.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    found, is_seen = seen(right * scale, mean_change * scale if bias else None, factorize(moment), 0.1,
                          exponent)
    torch.testing.assert_close(found, expected)
    assert is_seen.tolist() == [1, 1]


def test_nothing_is_learned_of_a_zero_gradient() -> None:
    found, is_seen = seen(torch.zeros(1, 3, 4), torch.zeros(1, 3), factorize(torch.eye(4)[None]), 0.1, 0.5)
    assert is_seen.tolist() == [0]
    assert not found.any()


def test_whatever_direction_the_outputs_move_in_they_move_alike() -> None:
    """The theorem: without damping the second moment of the changes is I, for outputs that move together
    too."""
    change = drawn(1, 4, 6) * torch.tensor([1.0, 10.0, 1.0, 0.1]).view(1, 4, 1)
    change[:, 1] += 5 * change[:, 0]
    moment = change @ change.mT
    root = inverse_root(moment)
    moved = torch.linalg.eigvalsh(root @ moment @ root)
    values = torch.linalg.eigvalsh(moment)
    torch.testing.assert_close(moved, values / (values + 0.1 * values.mean()))


def entries_after(steps: int, outputs: int, gradient: float = 1.0) -> dict[str, Tensor]:
    """Of the weight of a layer, its state."""
    torch.manual_seed(0)
    layer = nn.Linear(5, outputs)
    optimizer = EMSA(layer)
    for step in range(steps):
        x = drawn(7, 5, seed=step).float()
        layer.zero_grad()
        (layer(x).tanh().square().mean() * gradient).backward()
        optimizer.step()
    return dict(optimizer.state[layer.weight])


def test_what_is_kept_of_stages() -> None:
    """Of several outputs, but not too many."""
    assert "output_moment" not in entries_after(1, 1)
    assert "output_moment" not in entries_after(1, WIDEST + 1)
    kept = entries_after(3, 6)["output_moment"]
    assert kept.shape == (1, 6, 6)
    torch.testing.assert_close(kept.diagonal(dim1=1, dim2=2).mean(), torch.tensor(1.0))


def test_batches_without_gradients_do_not_count() -> None:
    state = entries_after(4, 6, gradient=0.0)
    assert state["output_refreshes"].tolist() == [0]
    assert torch.equal(state["output_moment"], torch.eye(6)[None])


@pytest.mark.parametrize("damping", [0.0, 0.1])
@pytest.mark.parametrize("exponent", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["dependent", "constant", "zero"])
def test_inputs_that_do_not_vary(kind: str, exponent: float, damping: float) -> None:
    """More inputs than rows, inputs that are constant, inputs of 0."""
    torch.manual_seed(0)
    layer = nn.Linear(24, 6)
    optimizer = EMSA(layer, metric=Metric(damping=damping, exponent=exponent))
    x = {"dependent": drawn(5, 24).float(), "constant": torch.ones(5, 24), "zero": torch.zeros(5, 24)}[kind]
    for _ in range(6):
        layer.zero_grad()
        (layer(x) - 1).square().mean().backward()
        optimizer.step()
    assert optimizer.state[layer.weight]["output_moment"].isfinite().all()
    assert optimizer.state[layer.weight]["output_refreshes"] > 0


def test_changes_beyond_numbers_are_not_taken_in() -> None:
    right = torch.ones(2, 3, 4)
    right[1, 0, 0] = torch.inf
    found, is_seen = seen(right, None, factorize(torch.eye(4).expand(2, -1, -1)), 0.1, 0.5)
    assert is_seen.tolist() == [1, 0]
    assert found.isfinite().all()


def test_a_saved_state_that_holds_nan_is_named() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 6), drawn(7, 5).float()
    optimizer = EMSA(layer)
    layer(x).square().mean().backward()
    optimizer.step()
    saved = optimizer.state_dict()
    saved["state"][0]["output_moment"] = torch.full((1, 6, 6), torch.nan)
    optimizer.load_state_dict(saved)
    layer(x).square().mean().backward()
    with pytest.raises(NonFiniteError, match="the step of weight is not finite"):
        optimizer.step()


def test_the_first_gradient_is_seen_whenever_it_comes() -> None:
    """Between two refreshes too, so that rho is measured with C from the first."""
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 6), drawn(7, 5).float()
    optimizer = EMSA(layer)
    for step in range(12):
        layer.zero_grad()
        (layer(x).tanh().square().mean() * float(step >= 9)).backward()
        optimizer.step()
        assert (optimizer.state[layer.weight]["output_refreshes"] > 0) == (step >= 9)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_the_scale_of_the_loss_means_nothing_to_it(scale: float) -> None:
    torch.testing.assert_close(entries_after(8, 6, scale)["output_moment"],
                               entries_after(8, 6)["output_moment"], rtol=1e-4, atol=1e-5)


def end_loss(monkeypatch: pytest.MonkeyPatch, is_whitened: bool, seed: int) -> float:
    """Of a narrow network on plain regression, after 500 steps."""
    def error(x: Tensor) -> Tensor:
        return (model(x) - (x @ teacher).sin().sum(1, keepdim=True)).square().mean()

    with monkeypatch.context() as patch:
        if not is_whitened:
            patch.setattr(AffineStage, "is_whitened", False)
        torch.manual_seed(seed)
        widths = [10, 48, 48, 48, 1]
        parts = [part for before, after in pairwise(widths)
                 for part in (nn.Linear(before, after), nn.Tanh())]
        model, teacher = nn.Sequential(*parts[:-1]), drawn(10, 4, seed=seed).float()
        optimizer = EMSA(model)
        for step in range(500):
            optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 500)
            model.zero_grad()
            loss = error(drawn(48, 10, seed=step).float())
            loss.backward()
            optimizer.step(loss=loss)
        optimizer.eval()
        return error(drawn(2000, 10, seed=10**6).float()).item()


def test_narrow_networks_learn_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with_it, without = (sum(end_loss(monkeypatch, one, seed) for seed in range(2)) for one in (True, False))
    assert with_it < 0.95 * without
