"""What is evaluated and saved are the averages by themselves, and what is trained are the controls."""

import io
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from optim_builders import without_checked_types
from torch import Tensor, nn

from pontryagin.errors import ProblemError
from pontryagin.optim import EMSA, Averaged, evaluate_averages

Optimizer = EMSA | Averaged
MAKERS = [EMSA, lambda model: Averaged(torch.optim.AdamW(model.parameters(), 1e-2))]
X, Y = torch.randn(12, 4, generator=torch.Generator().manual_seed(5)), torch.arange(12) % 3


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def trained(model: nn.Module, optimizer: Optimizer, steps: int, called: nn.Module | None = None) -> None:
    """With accumulation over two halves."""
    for _ in range(steps):
        optimizer.zero_grad()
        for rows in (slice(0, 6), slice(6, 12)):
            nn.functional.cross_entropy((called or model)(X[rows]), Y[rows]).backward()
        optimizer.step()


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


@pytest.fixture(params=MAKERS, ids=["EMSA", "Averaged"])
def make(request: pytest.FixtureRequest) -> Callable[[nn.Module], Optimizer]:
    return request.param


def by_hand(make: Callable[[nn.Module], Optimizer], steps: int) -> tuple[list[Tensor], list[Tensor]]:
    """Controls and averages of a loop that calls nothing."""
    model = network()
    optimizer = make(model)
    trained(model, optimizer, steps)
    controls = weights(model)
    optimizer.eval()
    return controls, weights(model)


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_evaluated_and_trained(make: Callable[[nn.Module], Optimizer], without: Callable[[], object]) -> None:
    model = network()
    optimizer = make(model)
    evaluate_averages(model, optimizer)
    with without():
        model.eval()(X)  # before the first step there are none
    trained(model.train(), optimizer, 4)
    controls, averages = by_hand(make, 4)
    assert not equal(controls, averages)
    assert equal(weights(model), controls)
    with without():
        model.eval()(X)
    assert equal(weights(model), averages)
    trained(model.train(), optimizer, 3)
    assert equal(weights(model), by_hand(make, 7)[0])


def test_evaluation_amid_accumulation(make: Callable[[nn.Module], Optimizer]) -> None:
    """Between a backward pass and the step that takes its gradients."""
    found = []
    for asks in (False, True):
        model = network()
        optimizer = make(model)
        evaluate_averages(model, optimizer)
        for _ in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X), Y).backward()
            if asks:
                with torch.no_grad():
                    model.eval()(X)
                model.train()
            optimizer.step()
        found.append(weights(model))
    assert equal(*found)


def test_what_has_gradients_is_trained(make: Callable[[nn.Module], Optimizer]) -> None:
    """Fine-tuning in evaluation mode, and a pass in training mode without gradients."""
    model = network()
    optimizer = make(model)
    evaluate_averages(model, optimizer)
    trained(model.eval(), optimizer, 4)
    controls, averages = by_hand(make, 4)
    assert equal(weights(model), controls)
    with torch.no_grad():
        model(X)
        assert equal(weights(model), averages)
        model.train()(X)
    assert equal(weights(model), controls)


@pytest.mark.parametrize("is_shown", [True, False])
def test_weights_that_are_loaded_leave_a_whole_state(make: Callable[[nn.Module], Optimizer],
                                                     is_shown: bool) -> None:
    """A distributed checkpoint is read into the entries that there are."""
    model = network()
    optimizer = make(model)
    evaluate_averages(model, optimizer)
    trained(model, optimizer, 4)

    def entries() -> list[list[str]]:
        return [sorted(known) for known in optimizer.state_dict()["state"].values()]

    before = entries()
    if not is_shown:
        model(X)
    model.load_state_dict(network().state_dict())
    assert entries() == before


@pytest.mark.parametrize("first", ["model", "optimizer"])
def test_a_checkpoint_has_the_averages_and_goes_on(make: Callable[[nn.Module], Optimizer],
                                                   first: str) -> None:
    """In whatever order the two are asked for."""
    model = network()
    optimizer = make(model)
    evaluate_averages(model, optimizer)
    trained(model, optimizer, 4)
    parts = {"model": model, "optimizer": optimizer}
    saved = {name: parts[name].state_dict() for name in sorted(parts, key=lambda name: name != first)}
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    saved = torch.load(file)
    assert equal(list(saved["model"].values()), by_hand(make, 4)[1])
    fresh = network()
    resumed = make(fresh)
    evaluate_averages(fresh, resumed)
    fresh.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    with torch.no_grad():
        fresh.eval()(X)
    assert equal(weights(fresh), list(saved["model"].values()))
    trained(fresh.train(), resumed, 3)
    trained(model, optimizer, 3)
    controls, averages = by_hand(make, 7)
    assert equal(weights(fresh), controls)
    assert equal(weights(model), controls)
    assert equal(list(fresh.state_dict().values()), averages)


@pytest.mark.parametrize("copied", [deepcopy, lambda model: pickled(model)])
def test_a_copy_does_not_follow(make: Callable[[nn.Module], Optimizer],
                                copied: Callable[[nn.Module], nn.Module]) -> None:
    model = network()
    optimizer = make(model)
    evaluate_averages(model, optimizer)
    trained(model, optimizer, 3)
    other = copied(model)
    controls = weights(model)
    with torch.no_grad():
        other.eval()(X)
    assert equal(weights(other), controls)
    assert equal(weights(model), controls)


def pickled(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_hooks_go(make: Callable[[nn.Module], Optimizer]) -> None:
    model = network()
    optimizer = make(model)
    handle = evaluate_averages(model, optimizer)
    trained(model, optimizer, 3)
    controls = weights(model)
    handle.remove()
    handle.remove()
    with torch.no_grad():
        model.eval()(X)
    optimizer.state_dict()
    assert equal(list(model.state_dict().values()), controls)
    assert not model._forward_pre_hooks


@pytest.mark.filterwarnings("ignore")
def test_compiled(make: Callable[[nn.Module], Optimizer]) -> None:
    """The hooks are on what is called."""
    torch.compiler.reset()
    model = network()
    called = torch.compile(model, backend="eager", fullgraph=True)
    optimizer = make(model)
    evaluate_averages(called, optimizer)
    trained(model, optimizer, 4, called)
    controls, averages = by_hand(make, 4)
    assert equal(weights(model), controls)
    with torch.no_grad():
        called.eval()(X)
    assert equal(weights(model), averages)
    torch.compiler.reset()


def test_what_cannot_be_followed_is_one_line() -> None:
    model = network()
    with pytest.raises(ProblemError, match="a module and EMSA or Averaged, found Sequential and SGD"):
        evaluate_averages(model, torch.optim.SGD(model.parameters(), 0.1))
    with without_checked_types(), pytest.raises(ProblemError, match="found list and EMSA"):
        evaluate_averages([model], EMSA(model))
