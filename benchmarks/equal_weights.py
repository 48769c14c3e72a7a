"""How far the paper's ten iterations of L-BFGS tell its losses: two codes of it, from equal weights.

    OMP_NUM_THREADS=1 python -m benchmarks.equal_weights [--seeds 1]

The authors' released run (100 samples, regularizer 1e-3, rho = 1) without its noise, from `reproduce
sine-released`'s start of each seed. Printed: J after k = 1, 2, 3, 5 iterations with scipy's L-BFGS-B for
every argmax, layer after layer as the authors have it, and with this library's L-BFGS; after 9, 10 and 11
iterations of it, from weights 1e-7 apart, and converged.
"""

from argparse import ArgumentParser
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.func import grad_and_value

from pontryagin.hamiltonian import augmented, paper_penalties
from pontryagin.maximizer import LBFGS
from pontryagin.papers.sine.setup import SETUPS, SineSetup
from pontryagin.papers.sine.task import SineTask
from pontryagin.trajectory import Propagation, StageGroup, group_stages

SHOWN = (1, 2, 3, 5)
Argmax = Callable[[StageGroup], Tensor]
SETUP = SETUPS["released"]


def losses(task: SineTask, start: Tensor, argmax: Argmax, iterations: int) -> list[float]:
    """J of the start and after each iteration, every argmax taken."""
    problem, theta = task.problem(), start
    found = [task.objective(theta).item()]
    for _ in range(iterations):
        controls = tuple(theta.unbind())
        group, = group_stages(problem, controls, Propagation(problem, controls).trajectory())
        theta = argmax(group)
        found.append(task.objective(theta).item())
    return found


def by_scipy(setup: SineSetup, iterations: int = 10, **tolerances: float) -> Argmax:
    """Layer after layer."""
    penalties = paper_penalties(setup.rho, setup.samples)

    def argmax(group: StageGroup) -> Tensor:
        rows = []
        for n, start in enumerate(group.control):
            data = tuple(part[n] for part in group.data)
            # sums over the samples, as the authors have it: the line searches depend on the scale
            slope = grad_and_value(lambda one, data=data: -setup.samples * augmented(
                group.stage, one, data, penalties))

            def both(point: np.ndarray, slope: Callable[..., tuple[Tensor, Tensor]] = slope
                     ) -> tuple[float, np.ndarray]:
                gradient, value = slope(torch.from_numpy(point))
                return value.item(), gradient.detach().numpy()

            rows.append(minimize(both, start.numpy(), jac=True, method="L-BFGS-B",
                                 options={"maxiter": iterations, "maxfun": 10**6, **tolerances}).x)
        return torch.from_numpy(np.stack(rows))

    return argmax


def by_ours(setup: SineSetup, iterations: int) -> Argmax:
    """All layers at once."""
    return lambda group: LBFGS(iterations).model(group).maximize(paper_penalties(setup.rho, setup.samples))


def moved(start: Tensor, size: float, draw: int) -> Tensor:
    """The start with uniform noise."""
    generator = torch.Generator().manual_seed(1000 + draw)
    return start + size * (2 * torch.rand(start.shape, dtype=start.dtype, generator=generator) - 1)


def told(name: str, run: list[float]) -> None:
    print(f"{name:34s}" + "".join(f"  {run[k]:9.5g}" for k in SHOWN), flush=True)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(given.seeds):
        task = SineTask("b", seed, SETUP)
        start, last = task.start(), max(SHOWN)
        near = moved(start, 1e-7, seed)
        print(f"seed {seed}, J after k =" + " " * 15 + "".join(f"  {k:9d}" for k in SHOWN))
        for count in (9, 10, 11):
            told(f"scipy, {count} iterations", losses(task, start, by_scipy(SETUP, count), last))
            told(f"LBFGS({count})", losses(task, start, by_ours(SETUP, count), last))
        told("scipy, 10, weights 1e-7 apart", losses(task, near, by_scipy(SETUP), last))
        told("scipy, converged", losses(task, start, by_scipy(SETUP, 3000, ftol=0.0, gtol=1e-10), last))
        told("LBFGS(1000)", losses(task, start, by_ours(SETUP, 1000), last))


if __name__ == "__main__":
    main()
