"""What gradients have along the directions of the inputs, and what is taken along each."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pontryagin.errors import NonFiniteError, ProblemError
from pontryagin.optim import EMSA
from pontryagin.optim.directions import EXPONENT, MEMORY, after, lengths, levelled, turned_along
from pontryagin.optim.whitening import WIDEST

seeds = st.integers(0, 999)
ROUNDING = 1e-20


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turn(size: int, seed: int) -> Tensor:
    """An orthogonal matrix."""
    return torch.linalg.qr(drawn(1, size, size, seed=seed))[0]


@given(seed=seeds, damping=st.floats(0, 1), scale=st.sampled_from([1e-30, 1.0, 1e30]))
def test_directions_are_measured_over_their_mean(seed: int, damping: float, scale: float) -> None:
    energies = drawn(2, 5, seed=seed).square() * scale
    found = lengths(energies, damping, EXPONENT, ROUNDING)
    relative = energies / energies.mean(1, keepdim=True)
    torch.testing.assert_close(found.square() * (relative + damping), torch.ones(2, 5).double())


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_nothing_known_is_nothing_preferred(damping: float) -> None:
    found = lengths(torch.zeros(1, 4), damping, EXPONENT, ROUNDING)
    torch.testing.assert_close(found, torch.full((1, 4), (1 + damping)**-0.5))


def test_without_damping_nothing_is_taken_where_nothing_has_been() -> None:
    assert lengths(torch.tensor([[1.0, 0.0]]), 0.0, EXPONENT, ROUNDING)[0, 1] == 0


@given(seed=seeds, scale=st.sampled_from([1e-25, 1e-10, 1.0, 1e10, 1e18]))
def test_a_gradient_of_any_size_in_float32(seed: int, scale: float) -> None:
    """Their squares are no float32; what they are is known in float64."""
    turned = drawn(2, 3, 4, seed=seed)
    found = after(torch.zeros(2, 4, dtype=torch.float64), (turned * scale).float())
    torch.testing.assert_close(found, (1 - MEMORY) * scale**2 * turned.square().mean(1), rtol=1e-5, atol=0)


@given(seed=seeds, unit=st.sampled_from([1e-30, 0.5, 1e30]))
def test_what_a_gradient_is_divided_by(seed: int, unit: float) -> None:
    known, turned = drawn(2, 4, seed=seed).square() * unit**2, drawn(2, 3, 4, seed=seed + 1)
    units = torch.full((2,), unit, dtype=torch.float64)
    torch.testing.assert_close(after(known, turned, units), after(known, turned * unit))


@given(seed=seeds)
def test_variances_of_mixtures(seed: int) -> None:
    """Of independent numbers along old directions: the diagonal of their covariance along new ones."""
    energies, overlap = drawn(1, 5, seed=seed).square(), turn(5, seed + 1)
    expected = (overlap.mT @ energies.diag_embed() @ overlap).diagonal(dim1=1, dim2=2)
    found = turned_along(energies, overlap)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(), energies.sum())


@given(seed=seeds, empty=st.integers(1, 4))
def test_directions_without_variance_are_anyones(seed: int, empty: int) -> None:
    """Whichever vectors span what A_c knows nothing of, a step is the same."""
    values = torch.cat([torch.zeros(1, empty), 1 + torch.rand(1, 5 - empty)], 1).double()
    basis, gradient = turn(5, seed), drawn(1, 3, 5, seed=seed + 1)
    other = torch.cat([basis[..., :empty] @ turn(empty, seed + 2), basis[..., empty:]], 2)
    changes = []
    for each in (basis, other):
        energies = levelled(after(torch.zeros(1, 5, dtype=torch.float64), gradient @ each), values)
        scales = lengths(energies, 0.1, EXPONENT, ROUNDING)
        changes.append(gradient @ (each * scales.unsqueeze(1)) @ each.mT)
    torch.testing.assert_close(*changes)


@given(seed=seeds)
def test_levels_keep_the_sum(seed: int) -> None:
    energies, values = drawn(1, 6, seed=seed).square(), torch.tensor([[0, 0, 1e-20, 1, 2, 3.0]]).double()
    found = levelled(energies, values)
    torch.testing.assert_close(found.sum(), energies.sum())
    assert len(found[0, :3].unique()) == 1
    assert torch.equal(found[0, 3:], energies[0, 3:])


def test_noise_is_whitened() -> None:
    """The theorem: without damping all directions have equal parts of the steps, whatever the noise is, and
    an output is moved by a |dW|^2 in the mean square, a = mean(diag A)."""
    basis, energies, variances = turn(4, 0), torch.tensor([[1.0, 4.0, 0.1, 20.0]]).double(), torch.tensor(
        [[3.0, 1.0, 2.0, 0.5]]).double()
    noise = drawn(1, 200_000, 4, seed=1) * energies.sqrt() @ basis.mT
    found = after(torch.zeros(1, 4, dtype=torch.float64), noise @ basis)
    change = noise @ (basis * lengths(found, 0.0, EXPONENT, ROUNDING).unsqueeze(1)) @ basis.mT
    covariance = change.mT @ change / 200_000
    torch.testing.assert_close(covariance / covariance[0, 0, 0], torch.eye(4).double()[None], atol=0.02,
                               rtol=0)
    moment = (basis * variances.unsqueeze(1)) @ basis.mT
    moved = torch.einsum("goi,gij,goj->go", change, moment, change).mean()
    torch.testing.assert_close(moved, variances.mean() * change.square().sum(2).mean(), rtol=0.02, atol=0)


def trained(layer: nn.Linear, steps: int, scale: float = 1.0, rows: int = 4) -> EMSA:
    optimizer = EMSA(layer)
    for step in range(steps):
        optimizer.zero_grad()
        x = torch.randn(rows, layer.in_features, generator=torch.Generator().manual_seed(step))
        (layer(x).square().mean() * scale).backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize(("inputs", "outputs", "rows", "known"), [
    (6, 5, 4, True), (80, 5, 4, True), (6, WIDEST, 4, True), (6, WIDEST + 1, 4, False), (1, 5, 4, False)])
def test_stages_that_have_them(inputs: int, outputs: int, rows: int, known: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs)
    state = trained(layer, 3, rows=rows).state[layer.weight]
    assert ("along_inputs" in state) is known
    assert not known or bool((state["along_inputs"] > 0).any())


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_steps_are_those_of_losses_of_any_scale(scale: float) -> None:
    found = []
    for factor in (1.0, scale):
        torch.manual_seed(0)
        layer = nn.Linear(6, 5)
        trained(layer, 40, factor)
        found.append(layer.weight.detach())
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_a_refused_step_teaches_nothing() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 5)
    optimizer = trained(layer, 3)
    before = optimizer.state[layer.weight]["along_inputs"].clone()
    optimizer.zero_grad()
    layer(torch.randn(4, 6)).sum().backward()
    assert layer.weight.grad is not None
    layer.weight.grad[0, 0] = torch.nan
    with pytest.raises(NonFiniteError):
        optimizer.step()
    assert torch.equal(optimizer.state[layer.weight]["along_inputs"], before)


def test_a_state_without_is_refused() -> None:
    layer = nn.Linear(6, 5)
    saved = trained(layer, 3).state_dict()
    del saved["state"][0]["along_inputs"]
    with pytest.raises(ProblemError, match="along_inputs"):
        EMSA(nn.Linear(6, 5)).load_state_dict(saved)
