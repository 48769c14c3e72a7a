"""How well the rate that `find_lr` finds serves the whole run, of EMSA or AdamW.

    OMP_NUM_THREADS=1 python -m benchmarks.learning_rates --data FOLDER [--optimizer AdamW] [--seeds 1]
    [--iterations 300] [--only "10 layers" sine]

Networks of benchmarks.defaults, and a sine network on a picture (coordinates -> 16 digits, sin(30 z)). Per
network
and seed: the train loss over the last tenth of a run at every rate, rates linear to 0, from equal weights on
equal batches; the rate found; and whether its run ends below the best of all runs that are 1.3 times shorter,
so that it is within that factor of the best rate in iterations.
"""

import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from itertools import islice
from math import inf, isfinite

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from benchmarks.defaults import Data, images, networks
from benchmarks.measure import known
from benchmarks.zoo.family import Batch, Build, Family
from pontryagin.errors import NonFiniteError
from pontryagin.optim import EMSA, find_lr
from pontryagin.run.errors import ExperimentError

OPTIMIZERS: dict[str, tuple[Callable[[nn.Module, float], torch.optim.Optimizer], tuple[float, ...]]] = {
    "EMSA": (lambda model, lr: EMSA(model, lr=lr), (0.003, 0.01, 0.03, 0.06, 0.1)),
    "AdamW": (lambda model, lr: torch.optim.AdamW(model.parameters(), lr), (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
}
FACTOR = 1.3


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(30 * x)


def sine() -> nn.Sequential:
    """As Sitzmann et al. (2020) begin."""
    layers = [nn.Linear(2, 128), nn.Linear(128, 128), nn.Linear(128, 128), nn.Linear(128, 1)]
    nn.init.uniform_(layers[0].weight, -1 / 2, 1 / 2)
    for layer in layers[1:]:
        nn.init.uniform_(layer.weight, -(6 / 128)**0.5 / 30, (6 / 128)**0.5 / 30)
    return nn.Sequential(layers[0], Sine(), layers[1], Sine(), layers[2], Sine(), layers[3])


def picture(folder: str | None) -> Data:
    shown = images(folder).train[0][:16].reshape(4, 4, 28, 28).permute(0, 2, 1, 3).reshape(112, 112)
    along = torch.linspace(-1, 1, 112)
    places = torch.cartesian_prod(along, along)
    values = (shown / shown.std()).reshape(-1, 1)
    return Data((places, values), (places, values), functional.mse_loss)


def end(family: Family, kind: str, rate: float, seed: int, iterations: int) -> float:
    """The mean of the last tenth of the losses of a run."""
    model, losses = start(family, seed), []
    optimizer = OPTIMIZERS[kind][0](model, rate)
    try:
        for done, batch in enumerate(islice(batches(family, seed), iterations)):
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - done / iterations)
            losses.append(family.iterate(family, model, batch, [optimizer]))
    except NonFiniteError:
        return inf
    last = losses[-max(1, iterations // 10):]
    return sum(last) / len(last) if isfinite(sum(losses)) else inf


def start(family: Family, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return family.build().train()


def batches(family: Family, seed: int) -> Iterator[Batch]:
    generator = Generator().manual_seed(seed)
    while True:
        yield family.draw(generator)


def row(name: str, found: tuple[Build, Data, int], kind: str, seed: int, iterations: int) -> tuple[str, bool]:
    make, rates = OPTIMIZERS[kind]
    build, data, size = found
    family = data.family(build, size)
    pilots = find_lr(make, start(family, seed), family.loss, lambda: batches(family, seed), rates=rates,
                     iterations=max(20, round(0.03 * iterations)))
    ends = {rate: end(family, kind, rate, seed, iterations) for rate in rates}
    shorter = min(end(family, kind, rate, seed, round(iterations / FACTOR)) for rate in rates)
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
    try:
        found = {"sine": (sine, picture(given.data), 2048), **networks(given.data)}
    except ExperimentError as error:
        options.error(str(error))
    rates = OPTIMIZERS[given.optimizer][1]
    print(f"| {given.optimizer} | " + " | ".join(f"{rate:g}" for rate in rates)
          + " | best | found | within 1.3 |\n" + "|---" * (len(rates) + 4) + "|")
    count = []
    for name in known(options, "network", given.only or [], found):
        for seed in range(given.seeds):
            line, good = row(name, found[name], given.optimizer, seed, given.iterations)
            count.append(good)
            print(line, flush=True)
    print(f"\nwithin 1.3: {sum(count)} of {len(count)}")


if __name__ == "__main__":
    main()
