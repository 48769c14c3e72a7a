"""The argmax of twenty equal stages of the sine problem, by every maximizer, relative to L-BFGS stage by
stage.

    OMP_NUM_THREADS=1 python -m benchmarks.maximizers

One thread, float64, 1000 samples, width 5. The methods take turns; the ratio is that of the medians. A step
includes what the method computes from states and costates (moments, factorizations, gradients), not their
propagation: that is the last row.
"""

from collections.abc import Callable
from statistics import median

import torch

from benchmarks.measure import in_turn
from pontryagin.hamiltonian import paper_penalties
from pontryagin.maximizer import LBFGS, ClosedForm, GaussNewton, Maximizer, RowGaussNewton, StageByStage
from pontryagin.papers.sine.task import SineTask
from pontryagin.trajectory import group_stages, propagate

ROUNDS = 15


def main() -> None:
    torch.set_num_threads(1)
    seconds = in_turn(prepare(), ROUNDS)
    slow = median(seconds["L-BFGS, 10 iterations, stage by stage"])
    for name, times in seconds.items():
        print(f"{name:42s} {1e3 * median(times):8.2f} ms   1/{slow / median(times):.1f}")


def prepare() -> dict[str, Callable[[], object]]:
    task = SineTask("a", 0)
    theta = task.start()
    penalties = paper_penalties(1.0, 1000)
    whole, split = task.problem(), task.split_problem()
    controls = tuple(theta.unbind())
    parted = tuple(part for row in theta for part in (row, theta.new_empty(0)))
    group, = group_stages(whole, controls, propagate(whole, controls))
    affine, = group_stages(split, parted, propagate(split, parted))

    def with_(maximizer: Maximizer, stages: object = group) -> Callable[[], object]:
        return lambda: maximizer.model(stages).maximize(penalties)  # type: ignore[arg-type]

    return {
        "L-BFGS, 10 iterations, stage by stage": with_(StageByStage(LBFGS())),
        "L-BFGS, 10 iterations, batched": with_(LBFGS()),
        "Gauss-Newton, both penalties": with_(GaussNewton()),
        "Gauss-Newton by rows": with_(RowGaussNewton()),
        "closed form": with_(ClosedForm(), affine),
        "states and costates": lambda: propagate(split, parted),
    }


if __name__ == "__main__":
    main()
