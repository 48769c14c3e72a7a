"""A model that draws random numbers in evaluation mode is looked at with one draw for each batch, whatever it
draws from."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pontryagin.audit import audit
from pontryagin.diagnostics import extreme_eigenvalues, module_hessian, spectral_density
from pontryagin.diagnostics.draws import Draws
from pontryagin.problem import ProblemError

UNKNOWN = np.random.default_rng(3)


class Noisy(nn.Module):
    """z + noise between two layers; every source draws as many numbers as its input has entries."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.first, self.second, self.source = nn.Linear(6, 6), nn.Linear(6, 3), source
        self.generator, self.state = torch.Generator().manual_seed(1), np.random.RandomState(1)
        self.held = {"numpy": np.random.default_rng(1), "python": random.Random(1)}
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def noise(self, like: Tensor) -> Tensor:
        if self.source == "buffer":  # a stream of its own, by the number of calls
            self.calls += 1
            return torch.randn(like.shape, generator=torch.Generator().manual_seed(int(self.calls)),
                               dtype=like.dtype)
        draws: dict[str, Callable[[], object]] = {
            "torch": lambda: torch.randn(like.shape, dtype=like.dtype),
            "python": lambda: [random.gauss(0, 1) for _ in range(like.numel())],
            "numpy": lambda: np.random.standard_normal(like.numel()),
            "generator": lambda: torch.randn(like.shape, generator=self.generator, dtype=like.dtype),
            "state": lambda: self.state.standard_normal(like.numel()),
            "held numpy": lambda: self.held["numpy"].standard_normal(like.numel()),
            "held python": lambda: [self.held["python"].gauss(0, 1) for _ in range(like.numel())],
            "unknown": lambda: UNKNOWN.standard_normal(like.numel()),
        }
        return torch.as_tensor(draws[self.source](), dtype=like.dtype).view(like.shape)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.first(x))
        return self.second(z + 0.5 * self.noise(z))


class Same:
    def project(self, matrix: Tensor) -> Tensor:
        return matrix.clone()

    def check(self, rows: int, inputs: int) -> None:
        pass


KNOWN = ("torch", "python", "numpy", "generator", "state", "held numpy", "held python", "buffer")


def made(source: str) -> tuple[Noisy, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model = Noisy(source).double()
    return model, [(torch.randn(size, 6, dtype=torch.float64), torch.randint(3, (size,)))
                   for size in (8, 8, 5)]


def states(model: Noisy) -> list[str]:
    """Of all generators, and the buffer, as text."""
    return [str(torch.get_rng_state().tolist()), str(random.getstate()), str(np.random.get_state()),
            str(model.generator.get_state().tolist()), str(model.state.get_state()),
            str(model.held["numpy"].bit_generator.state), str(model.held["python"].getstate()),
            str(model.calls)]


@pytest.mark.parametrize("source", KNOWN)
def test_the_cost_of_the_weights_as_they_are_is_zero(source: str) -> None:
    model, batches = made(source)
    before = states(model)
    found = audit(model, "cross-entropy", batches, sets={"as it is": Same()})
    assert [stage.restrictions[0].true for stage in found.stages] == [0.0, 0.0]
    assert [stage.restrictions[0].predicted for stage in found.stages] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert states(model) == before
    assert str(audit(model, "cross-entropy", batches, sets={"as it is": Same()})) == str(found)


@pytest.mark.parametrize("source", KNOWN)
def test_gradients_costates_and_outputs_are_of_one_draw(source: str) -> None:
    """Predictions fit the truth as where nothing is random: the outputs are linear in the last stage."""
    model, batches = made(source)
    stage = audit(model, "cross-entropy", batches, sets=("ternary",)).stages[-1]
    assert stage.restrictions[0].predicted == pytest.approx(stage.restrictions[0].true, rel=1e-9)


def test_batches_draw_different_numbers() -> None:
    """Else the standard error over batches would not know of the draws."""
    model, batches = made("torch")
    found = audit(model, "cross-entropy", [batches[0]] * 4, sets=(), measure=False)
    assert found.loss_error > 1e-3


@pytest.mark.parametrize("source", KNOWN)
def test_hessian_products_are_those_of_one_operator(source: str) -> None:
    model, batches = made(source)
    before = states(model)
    hessian = module_hessian(model, "cross-entropy", batches)
    torch.manual_seed(9)
    one, other = torch.randn(2, hessian.size, dtype=torch.float64)
    at = hessian(one)
    random.random()
    np.random.random()
    assert torch.equal(hessian(one), at)
    assert torch.allclose(hessian(one + 2 * other), at + 2 * hessian(other), atol=1e-12)
    assert (other @ at).item() == pytest.approx((one @ hessian(other)).item(), rel=1e-9)
    assert states(model)[3:] == before[3:]
    generator = torch.get_rng_state()
    hessian(one)
    assert torch.equal(torch.get_rng_state(), generator)


def test_hessian_of_the_draw_against_differences_of_gradients() -> None:
    """With the noise written out."""
    model, batches = made("torch")
    began = torch.get_rng_state()
    hessian = module_hessian(model, "cross-entropy", batches)
    torch.set_rng_state(began)
    noises = [torch.randn(len(x), 6, dtype=torch.float64) for x, _ in batches]
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    total = sum(len(y) for _, y in batches)

    def cost(flat: Tensor) -> Tensor:
        a, b, c, d = flat.split([36, 6, 18, 3])
        return sum(F.cross_entropy(F.linear(torch.tanh(F.linear(x, a.view(6, 6), b)) + 0.5 * noise,
                                            c.view(3, 6), d), y)
                   * len(y) / total for (x, y), noise in zip(batches, noises, strict=True))

    assert torch.allclose(hessian.dense(), torch.func.hessian(cost)(flat), atol=1e-10)


def test_spectra_come_back() -> None:
    model, batches = made("numpy")
    hessian = module_hessian(model, "cross-entropy", batches)
    assert torch.equal(extreme_eigenvalues(hessian, 2).highest, extreme_eigenvalues(hessian, 2).highest)
    dense = torch.linalg.eigvalsh(hessian.dense())
    assert torch.allclose(extreme_eigenvalues(hessian, 2).highest, dense[-2:], rtol=1e-6)
    assert torch.equal(spectral_density(hessian, probes=2, steps=5).density,
                       spectral_density(hessian, probes=2, steps=5).density)


def test_a_generator_out_of_reach_is_refused() -> None:
    model, batches = made("unknown")
    with pytest.raises(ProblemError, match="module_hessian: two passes over the same batch differ"):
        module_hessian(model, "cross-entropy", batches)
    with pytest.raises(ProblemError, match="audit: two passes over the same batch differ"):
        audit(model, "cross-entropy", batches)


def test_draws_go_on_between_different_data() -> None:
    torch.manual_seed(2)
    draws, found = Draws(nn.Identity()), []
    for data in ("a", "b", "a", "b"):
        draws.begin(data)
        found.append(torch.randn(3).tolist())
    assert found[:2] == found[2:]
    assert found[0] != found[1]
