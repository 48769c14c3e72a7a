"""Figure 1 of the paper, varied: the sine by residual networks of other depths, extended MSA beside Adam.

The paper's network has 20 layers with step size 0.25 (T = 5). Here T stays 5 and the depth changes, so that
the networks are finer and coarser discretizations of the same differential equation.

```
python examples/figure_1_varied.py
```

The figure itself, with its options: `pontryagin reproduce sine --quick --methods emsa,adam`.
"""

from time import process_time

import torch
from torch import Tensor

import pontryagin as pmp

WIDTH, HORIZON, ITERATIONS, RATES = 5, 5.0, 60, (0.03, 0.1, 0.3)


def total(state: Tensor) -> Tensor:
    """The prediction: the sum of the final state."""
    return state.sum(-1)


def problem_of(depth: int) -> pmp.ControlProblem:
    """y = sin x on [-pi, pi]; x_0 holds the input five times."""
    x = torch.linspace(-torch.pi, torch.pi, 200, dtype=torch.float64)
    stages = pmp.split_euler(torch.tanh, WIDTH, step_size=HORIZON / depth, steps=depth, dtype=torch.float64)
    return pmp.ControlProblem(stages, pmp.SquaredError(total), x.unsqueeze(1).repeat(1, WIDTH), x.sin())


def start_of(problem: pmp.ControlProblem) -> list[Tensor]:
    """Zeros, a saddle point of J, plus noise."""
    torch.manual_seed(0)
    return [control + 0.1 * torch.randn_like(control) for control in problem.initial_controls()]


def by_emsa(depth: int) -> float:
    """J after extended MSA."""
    problem = problem_of(depth)
    solver = pmp.ExtendedMSA(problem, start_of(problem))
    return [record.objective_after for record in solver.iterate(ITERATIONS)][-1]


def by_adam(depth: int, rate: float) -> float:
    """J after Adam on the same controls, by the plain loop over layers."""
    problem = problem_of(depth)
    controls = [control.requires_grad_() for control in start_of(problem) if control.numel()]  # W by rows, b

    def objective() -> Tensor:
        state = problem.initial_state
        for control in controls:
            weight, bias = control[:WIDTH**2].view(WIDTH, WIDTH), control[WIDTH**2:]
            state = state + HORIZON / depth * torch.tanh(state @ weight.T + bias)
        return (total(state) - problem.target).square().mean()

    optimizer = torch.optim.Adam(controls, rate)
    for _ in range(ITERATIONS):
        optimizer.zero_grad()
        objective().backward()
        optimizer.step()
    return objective().item()


print(f"J after {ITERATIONS} iterations of a full batch, one seed; Adam at the best of the rates {RATES}")
print("layers    E-MSA  seconds     Adam  CPU seconds of a run")
ahead = 0
for depth in (5, 10, 20):
    began = process_time()
    emsa = by_emsa(depth)
    middle = process_time()
    adam = min(by_adam(depth, rate) for rate in RATES)
    ended = process_time()
    ahead += emsa < adam
    print(f"{depth:6d}  {emsa:.1e}  {middle - began:7.2f}  {adam:.1e}  {(ended - middle) / len(RATES):7.2f}")
print(f"After {ITERATIONS} iterations extended MSA is lower than Adam at {ahead} of 3 depths.")
