"""Averages of EMSA's controls: their formula, and that showing and hiding them changes nothing of the
training."""

import io
from itertools import pairwise
from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optim_builders import assert_close, emsa, images, loss_of, mlp, net, parameters, train, vectors
from torch import Tensor, nn

from pontryagin.optim import EMSA, Acceptance, adamw
from pontryagin.optim import emsa as emsa_module
from pontryagin.optim.averages import Averages
from pontryagin.optim.state import AverageState
from pontryagin.problem import ProblemError
from pontryagin.problem.admissible import Box


def controls(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def share(step: int, eta: float) -> float:
    """c_k: of the controls after the k-th step in the new average."""
    control, state = torch.ones(1).double(), AverageState({"mean_control": torch.zeros(1).double()})
    Averages().remember([(control, state)], step, eta)
    return state.mean_control.item()


@given(st.integers(1, 2000), st.floats(0, 50))
def test_the_window_grows_with_the_steps(steps: int, eta: float) -> None:
    """theta_j has the share c_j (1 - c_{j+1}) ... (1 - c_k): they sum to 1, and the latest never count
    less."""
    assert share(1, eta) == 1
    shares = [share(step, eta) for step in range(1, steps + 1)]
    often, seldom = shares[:256], [one for one in shares[256:] if one]
    for alike in (often, seldom):
        assert all(0 < after <= before <= 1 for before, after in pairwise(alike))
    if steps < 60:
        found = [shares[j] * prod(1 - one for one in shares[j + 1:]) for j in range(steps)]
        assert sum(found) == pytest.approx(1)
        assert all(early <= late * (1 + 1e-9) for early, late in pairwise(found))


@given(st.integers(65, 500), st.floats(0, 50))
def test_every_fourth_control_stands_for_four(quarter: int, eta: float) -> None:
    """So that those before count as much as if all had entered."""
    last = 4 * quarter
    assert [share(last - n, eta) for n in (1, 2, 3)] == [0, 0, 0]
    each = [(eta + 1) / (last - n + eta) for n in range(4)]
    assert 1 - share(last, eta) == pytest.approx(prod(1 - one for one in each), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("make", "batch"), [(mlp, vectors), (net, images)])
def test_averages_are_the_sum_by_definition(make: object, batch: object) -> None:
    model = make()  # type: ignore[operator]
    optimizer = EMSA(model, averaging=3.0)
    seen = []
    for step in range(7):
        train(model, optimizer, 1, batch, first=step)  # type: ignore[arg-type]
        seen.append(controls(model))
    shares = [4 / (step + 3) for step in range(1, 8)]
    expected = sum(shares[j] * prod(1 - one for one in shares[j + 1:]) * seen[j] for j in range(7))
    optimizer.eval()
    assert_close(controls(model), expected, 1e-12)  # type: ignore[arg-type]


def test_the_controls_come_back_bit_by_bit_and_training_goes_on_as_without() -> None:
    shown, plain = net(), net()
    optimizer, reference = EMSA(shown), EMSA(plain, averaging=None)
    for step in range(6):
        train(shown, optimizer, 1, images, first=step)
        train(plain, reference, 1, images, first=step)
        optimizer.eval()
        optimizer.eval()
        averaged = controls(shown)
        optimizer.train()
        optimizer.train()
        assert torch.equal(controls(shown), controls(plain))
        assert torch.equal(averaged, controls(plain)) == (step == 0)


def test_no_step_from_averages() -> None:
    model = mlp()
    optimizer = EMSA(model)
    train(model, optimizer, 3, vectors)
    optimizer.eval()
    before = controls(model)
    loss_of(model, *vectors()).backward()
    with pytest.raises(ProblemError, match=r"optimizer\.train\(\)"):
        optimizer.step()
    assert torch.equal(controls(model), before)


@pytest.mark.parametrize("while_shown", [False, True])
def test_resume_is_exact_from_a_checkpoint_of_either(while_shown: bool) -> None:
    straight, first, second = net(), net(), net()
    reference, optimizer = EMSA(straight), EMSA(first)
    train(straight, reference, 8, images)
    train(first, optimizer, 5, images)
    if while_shown:
        optimizer.eval()
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second.load_state_dict(saved["model"])
    resumed = EMSA(second)
    resumed.load_state_dict(saved["optimizer"])
    resumed.train()
    train(second, resumed, 3, images, first=5)
    assert torch.equal(parameters(second), parameters(straight))
    reference.eval()
    resumed.eval()
    assert torch.equal(parameters(second), parameters(straight))


def test_averages_of_half_precision_are_kept_in_single() -> None:
    """In bfloat16 shares of a thousandth would be rounded away."""
    model = mlp().to(torch.bfloat16)
    optimizer = EMSA(model, averaging=0.0)
    train(model, optimizer, 2, vectors, dtype=torch.bfloat16)
    for parameter in model.parameters():
        assert optimizer.state[parameter]["mean_control"].dtype == torch.float32
    optimizer.eval()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("options",
                         [{"averaging": None}, {"admissible": Box(-1, 1)}, {"acceptance": Acceptance()}])
def test_no_averages(options: dict[str, object]) -> None:
    model = mlp()
    optimizer = emsa(model, **options)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, *vectors())
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    before = controls(model)
    optimizer.eval()
    assert torch.equal(controls(model), before)
    assert not any("mean_control" in state for state in optimizer.state.values())


def test_groups_have_their_own() -> None:
    model = mlp()
    optimizer = EMSA(model, [{"params": model[0].parameters(), "averaging": None},
                             {"params": model[2].parameters()}])
    train(model, optimizer, 4, vectors)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.eval()
    same = [torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert same == [True, True, False, False]


@pytest.mark.parametrize("averaging", [-1.0, float("inf"), float("nan")])
def test_wrong_values_are_refused(averaging: float) -> None:
    with pytest.raises(ProblemError, match="averaging: expected a number >= 0 or None"):
        EMSA(mlp(), averaging=averaging)


def test_averages_lie_nearer_to_the_minimum_than_the_controls() -> None:
    """Least squares from noisy batches at a constant rate: the steps circle the minimum, their average
    approaches it."""
    torch.manual_seed(0)
    model = nn.Linear(6, 2).double()
    optimizer = EMSA(model)
    truth = torch.randn(2, 6, dtype=torch.float64)
    last, mean = [], []
    for step in range(600):
        x = torch.randn(16, 6, dtype=torch.float64)
        optimizer.zero_grad()
        (model(x) - x @ truth.mT - 0.5
         * torch.randn(16, 2, dtype=torch.float64)).square().sum(1).mean().backward()
        optimizer.step()
        if step >= 500:
            last.append((model.weight - truth).norm().item())
            optimizer.eval()
            mean.append((model.weight - truth).norm().item())
            optimizer.train()
    assert sum(mean) < 0.5 * sum(last)


def test_averages_that_are_no_longer_kept_are_not_shown() -> None:
    model = mlp()
    optimizer = EMSA(model)
    train(model, optimizer, 3, vectors)
    optimizer.param_groups[0]["averaging"] = None
    train(model, optimizer, 3, vectors, first=3)
    before = controls(model)
    optimizer.eval()
    assert torch.equal(controls(model), before)


def test_a_refused_step_leaves_no_trace_of_its_batch() -> None:
    model, plain = net(), net()
    optimizer, reference = EMSA(model), EMSA(plain)
    for one, other in ((model, optimizer), (plain, reference)):
        train(one, other, 3, images)
    optimizer.eval()
    optimizer.zero_grad()
    loss_of(model, *images(seed=77)).backward()
    with pytest.raises(ProblemError):
        optimizer.step()
    optimizer.train()
    for one, other in ((model, optimizer), (plain, reference)):
        train(one, other, 5, images, first=3)
    assert torch.equal(controls(model), controls(plain))


def test_a_state_that_lost_the_controls_is_refused() -> None:
    """A distributed checkpoint keeps the entries that a fresh optimizer has, and that one shows no
    averages."""
    model = mlp()
    optimizer = EMSA(model)
    train(model, optimizer, 3, vectors)
    optimizer.eval()
    saved = optimizer.state_dict()
    for state in saved["state"].values():
        del state["last_control"]
    with pytest.raises(ProblemError, match=r"call optimizer\.train\(\) before such a checkpoint is written"):
        EMSA(mlp()).load_state_dict(saved)


def test_a_state_from_before_there_were_averages_is_refused_by_name() -> None:
    model = mlp()
    optimizer = EMSA(model, averaging=None)
    train(model, optimizer, 3, vectors)
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        del group["averaging"], group["averaged"]
    resumed = EMSA(model)
    with pytest.raises(ProblemError, match=r"an older version: its groups have no averaged, averaging$"):
        resumed.load_state_dict(saved)
    assert not resumed.state


def test_averages_may_begin_late() -> None:
    model = mlp()
    optimizer = EMSA(model, averaging=None)
    train(model, optimizer, 3, vectors)
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group["averaging"] = 8.0
    resumed = EMSA(model)
    resumed.load_state_dict(saved)
    train(model, resumed, 2, vectors, first=3)
    before = controls(model)
    resumed.eval()
    assert not torch.equal(controls(model), before)


def test_a_scalar_parameter_has_averages_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for another one."""
    monkeypatch.setattr(emsa_module, "check_model", lambda model: None)

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(1.0, dtype=torch.float64, device="meta"))

    model = Scaled()
    with pytest.warns(UserWarning, match="by AdamW: factor"):
        optimizer = EMSA(model)
    optimizer.state[model.factor].update(mean_control=torch.tensor(1.0, dtype=torch.float64, device="meta"))
    fresh = adamw.current({}, torch.ones((), dtype=torch.float64)).entries
    optimizer.state[model.factor].update({name: value.to("meta" if value.ndim else "cpu")
                                          for name, value in fresh.items()})
    with pytest.warns(UserWarning, match="by AdamW: factor"):
        resumed = EMSA(model)
    resumed.load_state_dict(optimizer.state_dict())
    found = resumed.state[model.factor]
    assert (found["mean_control"].device.type, found["updates"].device.type) == ("meta", "cpu")
