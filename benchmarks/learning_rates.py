"""How well the rate that `find_lr` finds serves the whole run, of EMSA or AdamW.

    OMP_NUM_THREADS=1 python -m benchmarks.learning_rates --data FOLDER [--optimizer AdamW] [--seeds 1]
    [--iterations 300] [--only mlp-2 sine-picture]

Networks of the panel (`pontryagin bench panel`). Per network and seed: the train loss over the last tenth of
a run at every rate, rates linear to 0, from equal weights on equal batches; the rate found; and whether its
run ends below the best of all runs that are 1.3 times shorter, so that it is within that factor of the best
rate in iterations.
"""

import warnings
from argparse import ArgumentParser
from collections.abc import Callable
from itertools import islice
from math import inf, isfinite

import torch
from torch import Tensor, nn

from benchmarks.measure import known
from pontryagin.bench.panel.network import Work
from pontryagin.bench.panel.networks import NETWORKS
from pontryagin.errors import NonFiniteError
from pontryagin.optim import EMSA, find_lr
from pontryagin.run.errors import ExperimentError
from pontryagin.run.trainer import Batch

OPTIMIZERS: dict[str, tuple[Callable[[nn.Module, float], torch.optim.Optimizer], tuple[float, ...]]] = {
    "EMSA": (lambda model, lr: EMSA(model, lr=lr), (0.003, 0.01, 0.03, 0.06, 0.1)),
    "AdamW": (lambda model, lr: torch.optim.AdamW(model.parameters(), lr), (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
}
FACTOR = 1.3


def end(work: Work, kind: str, rate: float, seed: int, iterations: int) -> float:
    """The mean of the last tenth of the losses of a run."""
    model, losses, loss = start(work, seed), [], loss_of(work)
    optimizer = OPTIMIZERS[kind][0](model, rate)
    try:
        for done, batch in enumerate(islice(work.batches(seed), iterations)):
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - done / iterations)
            optimizer.zero_grad()
            value = loss(model, batch)
            value.backward()
            optimizer.step(**({"loss": value} if isinstance(optimizer, EMSA) else {}))
            losses.append(value.item())
    except NonFiniteError:
        return inf
    last = losses[-max(1, iterations // 10):]
    return sum(last) / len(last) if isfinite(sum(losses)) else inf


def start(work: Work, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return work.build().train()


def loss_of(work: Work) -> Callable[[nn.Module, Batch], Tensor]:
    return lambda model, batch: work.objective.mean(model(batch[0]), batch[1])


def row(name: str, work: Work, kind: str, seed: int, iterations: int) -> tuple[str, bool]:
    make, rates = OPTIMIZERS[kind]
    pilots = find_lr(make, start(work, seed), loss_of(work), work.batches(seed), rates=rates,
                     iterations=max(20, round(0.01 * iterations)))
    ends = {rate: end(work, kind, rate, seed, iterations) for rate in rates}
    shorter = min(end(work, kind, rate, seed, round(iterations / FACTOR)) for rate in rates)
    best = min(ends, key=ends.__getitem__)
    good = pilots.rate == best or ends[pilots.rate] <= shorter
    cells = " | ".join(f"{ends[rate]:.3g}" for rate in rates)
    return f"| {name} | {cells} | {best:g} | {pilots.rate:g} | {'yes' if good else 'no'} |", good


def main() -> None:
    options = ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", help="folder of MNIST's IDX files (or PONTRYAGIN_DATA)")
    options.add_argument("--optimizer", choices=OPTIMIZERS, default="EMSA")
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--iterations", type=int, default=300)
    options.add_argument("--only", nargs="+", help="names of networks")
    given = options.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "EMSA trains")
    rates = OPTIMIZERS[given.optimizer][1]
    print(f"| {given.optimizer} | " + " | ".join(f"{rate:g}" for rate in rates)
          + " | best | found | within 1.3 |\n" + "|---" * (len(rates) + 4) + "|")
    count = []
    for name in known(options, "network", given.only or [], NETWORKS):
        try:
            work = NETWORKS[name].work(given.data)
        except ExperimentError as error:
            options.error(str(error))
        for seed in range(given.seeds):
            line, good = row(name, work, given.optimizer, seed, given.iterations)
            count.append(good)
            print(line, flush=True)
    print(f"\nwithin 1.3: {sum(count)} of {len(count)}")


if __name__ == "__main__":
    main()
