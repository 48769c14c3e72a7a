"""A physics-informed net: u'' = -pi^2 sin(pi x) with u(0) = u(1) = 0, whose solution is sin(pi x).

The loss holds second derivatives to the inputs. EMSA counts the rows of these passes as they enter the
gradient, so nothing has to be said. The data are the same in every step: AdamW's rate is the best of four.

```
python examples/physics_informed.py
```
"""

from collections.abc import Callable
from math import pi

import torch
from torch import Tensor, nn

from pontryagin.optim import EMSA

points = torch.linspace(0, 1, 64).unsqueeze(1)
ends = torch.tensor([[0.0], [1.0]])
exact = torch.sin(pi * points)


def network() -> nn.Module:
    """Three layers of tanh, the same weights each time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))


def residual_loss(model: nn.Module) -> Tensor:
    """Mean square of u'' + pi^2 sin(pi x), and of u at the ends (weighted by 10)."""
    x = points.clone().requires_grad_()
    u = model(x)
    slope, = torch.autograd.grad(u.sum(), x, create_graph=True)
    curvature, = torch.autograd.grad(slope.sum(), x, create_graph=True)
    return (curvature + pi**2 * torch.sin(pi * x)).square().mean() + 10 * model(ends).square().mean()


def error_of(make: Callable[[nn.Module], torch.optim.Optimizer], steps: int = 600) -> float:
    """Largest distance from the solution after a run whose rate falls linearly to 0."""
    model = network()
    optimizer = make(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = residual_loss(model)
        loss.backward()
        return loss  # by which EMSA bounds its steps

    for _ in range(steps):
        optimizer.step(closure)
        schedule.step()
    with torch.no_grad():
        return (model(points) - exact).abs().max().item()


emsa = error_of(EMSA)
rates = (3e-3, 1e-2, 3e-2, 1e-1)
adamw = {rate: error_of(lambda model, rate=rate: torch.optim.AdamW(model.parameters(), rate))
         for rate in rates}
best = min(adamw, key=adamw.__getitem__)
print(f"largest error of u after 600 steps: EMSA at its default rate {emsa:.1e}")
print("AdamW: " + ", ".join(f"{error:.1e} at {rate:g}" for rate, error in adamw.items()))
side = "nearer to" if emsa < adamw[best] else "farther from"
print(f"EMSA is {side} the solution than AdamW at the best of these rates, {best:g}: {emsa:.1e} against "
      f"{adamw[best]:.1e} (one seed).")
