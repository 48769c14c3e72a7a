"""A control problem in continuous time: a pendulum is swung up, and arrives at rest.

State: the angle (0 stands upright, pi hangs down) and its speed; control: the torque. J: half the integral of
the torque squared over three seconds, subject to angle = speed = 0 at the end.

```
python examples/pendulum_swing_up.py
```

More problems, with bounds and a free end time: `pontryagin reproduce control`.
"""

import torch
from torch import Tensor

from pontryagin.continuous import ContinuousProblem, Discretization, PiecewiseLinear, residual, solve, uniform

END, INTERVALS = 3.0, 30


def dynamics(t: Tensor, x: Tensor, u: Tensor) -> Tensor:
    """d(angle)/dt = speed, d(speed)/dt = 4 sin(angle) - 0.1 speed + torque; for a batch of samples."""
    return torch.stack([x[:, 1], 4 * x[:, 0].sin() - 0.1 * x[:, 1] + u[:, 0]], 1)


problem = ContinuousProblem(
    dynamics, initial_state=torch.tensor([[torch.pi, 0.0]], dtype=torch.float64), controls=1, end=END,
    running_cost=lambda t, x, u: 0.5 * u[:, 0] ** 2, terminal_constraint=lambda x: x)
mesh = Discretization(problem, uniform(END, INTERVALS), control=PiecewiseLinear())
found = solve(mesh, 0.1, tolerance=1e-6)  # from a torque of 0.1, for without one the pendulum just hangs
print("time  angle   speed  torque")
for k in range(0, INTERVALS + 1, 5):
    angle, speed = found.states[k, 0].tolist()
    print(f"{float(found.t[k]):4.1f}  {angle:5.2f}  {speed:6.2f}  {float(found.values[k].squeeze()):6.2f}")
lacking = float(residual(found).residual.mean())
print(f"J {float(found.objective):.3f} after {found.iterations} iterations, upright and at rest to 1e-6; the "
      f"Hamiltonian lacks {lacking:.0e} of its maximum over the torque, mean over time.")
