"""find_lr: pilots by a slow loop of their own, halving, and that nothing is left of them."""

import copy
import random
import sys
from collections.abc import Callable, Iterator
from math import inf, isfinite
from pathlib import Path

import numpy as np
import pytest
import torch
from optim_builders import by_two_processes, without_checked_types
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from pontryagin.errors import NonFiniteError, ProblemError
from pontryagin.optim import EMSA, Acceptance, FoundRate, Pilot, find_lr
from pontryagin.optim.pilot import halving
from pontryagin.optim.snapshot import generator_states

Batch = list[Tensor]
OPTIMIZERS: dict[str, Callable[[nn.Module, float], torch.optim.Optimizer]] = {
    "EMSA": lambda model, lr: EMSA(model, lr=lr),
    "EMSA with acceptance": lambda model, lr: EMSA(model, lr=lr, acceptance=Acceptance()),
    "AdamW": lambda model, lr: torch.optim.AdamW(model.parameters(), lr),
    "L-BFGS": lambda model, lr: torch.optim.LBFGS(model.parameters(), lr, max_iter=2),
}


class Restless(nn.Module):
    """All that a pass can change, and draw from."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2))
        self.frozen, self.head = nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 3)
        self.register_buffer("last", torch.zeros(8))
        self.own, self.numpys = torch.Generator().manual_seed(1), np.random.default_rng(2)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.added = self.calls
        hidden = self.frozen(self.body(x))
        self.last = hidden.detach().mean(0)  # another tensor
        noise = torch.rand(8, generator=self.own) + random.random() + np.random.rand() + self.numpys.random()
        return self.head(hidden * (1 + 0.01 * noise))


def restless() -> tuple[Restless, DataLoader]:
    torch.manual_seed(0)
    x = torch.randn(60, 6)
    loader = DataLoader(TensorDataset(x, x[:, :3].argmax(1)), 10, shuffle=True,
                        generator=torch.Generator().manual_seed(3))
    model = Restless()
    loss(model, next(iter(loader))).backward()  # there are gradients
    model.body[1].eval()
    return model, loader


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def everything(model: Restless, loader: DataLoader) -> dict[str, object]:
    tensors = {f"{name} {id(one)}": (one.detach().clone(), one.requires_grad,
                                     one.grad is not None and one.grad.clone())
               for name, one in [*model.named_parameters(), *model.named_buffers()]}
    return {**tensors, "flags": [module.training for module in model.modules()], "own": model.own.get_state(),
            "numpy": copy.deepcopy(model.numpys.bit_generator.state), "loader": loader.generator.get_state(),
            "calls": (model.calls, model.added), "everywhere": generator_states()}


def assert_same(one: object, other: object, place: str = "") -> None:
    if isinstance(one, Tensor):
        assert isinstance(other, Tensor), place
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key, value in one.items():
            assert_same(value, other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for number, (mine, yours) in enumerate(zip(one, other, strict=True)):
            assert_same(mine, yours, f"{place}.{number}")
    else:
        assert one == other, place


@pytest.mark.filterwarnings("ignore:EMSA trains")
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_all_is_put_back_and_again_gives_the_same(kind: str) -> None:
    model, loader = restless()
    before = everything(model, loader)
    with without_checked_types():  # the checks draw from Python's generator
        found = find_lr(OPTIMIZERS[kind], model, loss, loader, rates=(0.01, 0.05), iterations=10)
    assert_same(before, everything(model, loader))
    with without_checked_types():
        again = find_lr(OPTIMIZERS[kind], model, loss, loader, rates=(0.01, 0.05), iterations=10)
    assert [pilot.losses for pilot in again.pilots] == [pilot.losses for pilot in found.pilots]
    assert len({pilot.losses[0] for pilot in found.pilots}) == 1, "the same weights, batch and draws"
    assert len({pilot.losses[-1] for pilot in found.pilots}) == len(found.pilots)


def test_all_is_put_back_when_the_loss_raises_and_when_all_rates_fail() -> None:
    model, loader = restless()
    before, seen = everything(model, loader), []

    def breaking(model: nn.Module, batch: Batch) -> Tensor:
        seen.append(batch)
        if len(seen) == 15:
            raise KeyError("broken")
        return loss(model, batch)

    with pytest.raises(KeyError, match="broken"), without_checked_types():
        find_lr(OPTIMIZERS["AdamW"], model, breaking, loader)
    assert_same(before, everything(model, loader))
    with without_checked_types(), pytest.raises(
            NonFiniteError, match=r"no learning rate of 0\.1, 1 keeps the loss finite over 10 iterations"):
        find_lr(OPTIMIZERS["AdamW"], model, lambda model, batch: loss(model, batch) * inf, loader,
                rates=(1, 0.1))
    assert_same(before, everything(model, loader))


@pytest.mark.parametrize("kind", ["EMSA", "AdamW"])
def test_pilots_are_runs_in_small_with_a_decay_of_their_own(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    batches = [[x, x[:, :3].argmax(1)] for x in torch.randn(7, 10, 6, dtype=torch.float64)]
    found = find_lr(OPTIMIZERS[kind], model, loss, batches, rates=(0.1, 0.001, 0.01), iterations=20)

    def losses(rate: float, length: int) -> tuple[float, ...]:
        own, values = copy.deepcopy(model), []
        optimizer = OPTIMIZERS[kind](own, rate)
        for k in range(length):
            optimizer.param_groups[0]["lr"] = rate * (1 - k / length)
            optimizer.zero_grad()
            value = loss(own, batches[k % 7])
            value.backward()
            optimizer.step(**({"loss": value} if isinstance(optimizer, EMSA) else {}))
            values.append(value.item())
        return tuple(values)

    expected = {(rate, length): losses(rate, length) for rate in (0.001, 0.01, 0.1) for length in (10, 20)}
    ends = {key: sum(values[-(key[1] // 5):]) / (key[1] // 5) for key, values in expected.items()}
    finalists = sorted((0.001, 0.01, 0.1), key=lambda rate: ends[rate, 10])[:2]
    assert found.rate == min(finalists, key=lambda rate: ends[rate, 20])
    assert [(one.rate, one.iterations) for one in found.pilots] == [
        (0.001, 10), (0.01, 10), (0.1, 10), *((rate, 20) for rate in finalists)]
    for one in found.pilots:
        assert one.losses == pytest.approx(expected[one.rate, one.iterations], rel=1e-12)
        assert one.score == pytest.approx(ends[one.rate, one.iterations], rel=1e-12)
    assert (found.iterations, found.forward, found.backward, found.batches) == (70, 70, 70, 7)


def test_of_gradient_descent_on_a_quadratic_the_step_to_its_minimum() -> None:
    model = nn.Linear(3, 1, bias=False).double()
    found = find_lr(lambda model, lr: torch.optim.SGD(model.parameters(), lr), model,
                    lambda model, _: 0.5 * (model.weight - 1).square().sum(), [None],
                    rates=(1e-3, 1e-2, 0.1, 1.0, 1e9), iterations=20)
    assert found.rate == 1.0
    assert not found.is_at_edge
    assert "1e+09" in str(found)


def table(scores: dict[tuple[float, int], float]) -> Callable[[float, int], Pilot]:
    return lambda rate, length: Pilot(rate, length, (scores[rate, length],) * length, length, length, 0.0,
                                      "" if isfinite(scores[rate, length]) else "lost")


def tried(found: tuple[float, tuple[Pilot, ...]] | None) -> list[tuple[float, int]]:
    assert found is not None
    return [(pilot.rate, pilot.iterations) for pilot in found[1]]


def test_halving_replaces_finalists_that_fail() -> None:
    scores = {(1, 10): 3.0, (2, 10): 2.0, (3, 10): 1.0, (4, 10): inf, (1, 40): 0.5, (2, 40): 0.6,
              (3, 40): inf}
    found = halving((4.0, 3.0, 2.0, 1.0, 1.0), 40, table(scores))
    assert tried(found) == [(1, 10), (2, 10), (3, 10), (4, 10), (3, 40), (2, 40), (1, 40)]
    assert found is not None
    assert found[0] == 1


def test_short_pilots_are_not_halved_and_a_stop_stops() -> None:
    assert tried(halving((1.0, 2.0, 3.0), 8,
                         table({(1, 8): 1.0, (2, 8): 0.5, (3, 8): 2.0}))) == [(1, 8), (2, 8), (3, 8)]
    assert halving((1.0, 2.0), 8, lambda rate,
                   length: None if rate == 2 else table({(1, 8): 1.0})(rate, length)) is None
    with pytest.raises(NonFiniteError,
                       match=r"no learning rate of 1, 2 .* 8 iterations \(lost\): try smaller"):
        halving((1.0, 2.0), 8, table({(1, 8): inf, (2, 8): inf}))


def test_of_an_iterator_no_more_is_taken_than_pilots_need_and_a_function_may_give_one() -> None:
    model, left = nn.Linear(3, 1), iter(torch.randn(50, 4, 3))
    square = lambda model, x: model(x).square().mean()  # noqa: E731
    assert find_lr(OPTIMIZERS["AdamW"], model, square, left, rates=(0.1, 0.2), iterations=12).batches == 12
    assert len(list(left)) == 38

    def endless() -> Iterator[Tensor]:
        while True:
            yield torch.randn(4, 3)

    assert find_lr(OPTIMIZERS["AdamW"], model, square, endless, rates=(0.1,), iterations=5).batches == 5


def test_a_loss_may_take_batches_apart() -> None:
    batches = [{"x": x} for x in torch.randn(3, 4, 3)]
    found = find_lr(OPTIMIZERS["AdamW"], nn.Linear(3, 1), lambda model,
                    batch: model(batch.pop("x")).square().mean(), batches, rates=(0.01, 0.1), iterations=10)
    assert all(batch.keys() == {"x"} for batch in batches)
    assert found.rate == 0.1
    assert "but no" not in found.words


def test_where_nothing_is_learned_the_words_say_so() -> None:
    found = find_lr(OPTIMIZERS["AdamW"], nn.Linear(3, 1), lambda model, x: 0 * model(x).mean() + 1,
                    [torch.ones(2, 3)], rates=(0.01, 0.1), iterations=10)
    assert "no pilot lowered the loss" in found.words


def test_an_optimizer_that_was_there_before_sees_nothing() -> None:
    ends = []
    for looks in (False, True):
        torch.manual_seed(0)
        model, batches = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), []
        for x in torch.randn(8, 10, 6):
            batches.append([x, x[:, :3].argmax(1)])
        optimizer = EMSA(model)
        for number, batch in enumerate(batches):
            if looks and number == 3:
                find_lr(OPTIMIZERS["EMSA"], model, loss, batches, rates=(0.01, 0.1), iterations=10)
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
        ends.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(*ends)


def test_autocast_stands_in_the_loss() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    def mixed(model: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return nn.functional.mse_loss(model(x).float(), x[:, :3])

    found = find_lr(OPTIMIZERS["EMSA"], model, mixed, torch.randn(4, 10, 6), rates=(0.001, 0.05),
                    iterations=10)
    assert found.rate == 0.05


@pytest.mark.parametrize(("changes", "message"), [
    ({"rates": ()}, "expected rates > 0 and finite, at least one"),
    ({"rates": (0.1, -1)}, "expected rates > 0 and finite"),
    ({"rates": (0.1, "a")}, "expected rates > 0 and finite"),
    ({"iterations": 0}, "expected a whole number of iterations >= 1, found 0"),
    ({"iterations": True}, "expected a whole number of iterations >= 1, found True"),
    ({"batches": iter(())}, "expected batches, found none"),
    ({"batches": 3}, "expected batches, a list, .* found int"),
    ({"model": OPTIMIZERS["AdamW"]}, "expected a torch module"),
    ({"model": nn.LazyLinear(3)}, "expected a torch module whose parameters have shapes"),
    ({"make_optimizer": lambda model, lr: lr}, "to give a torch optimizer, found float"),
    ({"loss": lambda model, x: model(x)}, r"to give a scalar tensor .* found shape \(4, 1\)"),
    ({"loss": lambda model, x: 3.0}, "to give a scalar tensor .* found float"),
    ({"loss": lambda model, x: x.sum()}, "to give a scalar tensor with a gradient"),
])
def test_wrong_arguments_are_one_line(changes: dict[str, object], message: str) -> None:
    given = {"make_optimizer": OPTIMIZERS["AdamW"], "model": nn.Linear(3, 1), "loss": lambda model,
             x: model(x).mean(),
             "batches": torch.randn(2, 4, 3)} | changes
    with without_checked_types(), pytest.raises(ProblemError, match=message) as caught:
        find_lr(given.pop("make_optimizer"), given.pop("model"), given.pop("loss"), given.pop("batches"),
                **given)
    assert "\n" not in str(caught.value)


def test_the_picture_has_a_line_for_every_pilot() -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    pilots = [Pilot(rate, 3, losses, 3, 3, 0.1)
              for rate, losses in ((0.1, (3.0, 2.0, 1.0)), (0.2, (3.0, 1.0, 0.5)))]
    axes = figure.subplots()
    FoundRate(0.2, tuple(pilots), 3).draw(axes)
    assert [line.get_ydata().tolist() for line in axes.lines] == [[3.0, 2.0, 1.0], [3.0, 1.0, 0.5]]
    assert axes.lines[1].get_linewidth() > axes.lines[0].get_linewidth()
    assert axes.get_yscale() == "log"


def of_one_process(rank: int, folder: Path) -> None:
    """One of two, whose own losses would choose different rates; a NaN on one alone is a failure on both."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(0)
    parallel = nn.parallel.DistributedDataParallel(nn.Linear(6, 3).double())
    batches = torch.randn(12, 10, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(rank))

    def uneven(model: nn.Module, x: Tensor) -> Tensor:
        value = (model(x) - x[:, :3]).square().mean()
        if rank and model.module.weight.abs().max() > 5:
            return value * torch.nan
        return value

    found = find_lr(lambda model, lr: torch.optim.SGD(model.parameters(), lr), parallel, uneven, batches,
                    rates=(0.01, 0.3, 40.0), iterations=12)
    by_emsa = find_lr(OPTIMIZERS["EMSA"], parallel, uneven, batches, rates=(0.003, 0.1), iterations=12)
    torch.save([(pilot.rate, pilot.losses, pilot.failure) for one in (found, by_emsa)
                for pilot in one.pilots],
               folder / f"rank{rank}.pt")
    distributed.barrier()


def test_processes_agree(tmp_path: Path) -> None:
    one, other = by_two_processes(__file__, tmp_path)
    assert one == other
    assert [rate for rate, _, failure in one if failure] == [40.0]


if __name__ == "__main__":
    of_one_process(int(sys.argv[1]), Path(sys.argv[2]))
