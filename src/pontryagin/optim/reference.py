"""The whole EMSA step of a linear layer in one plain file: to read, run, vary; the oracle of the fast one.

z = W x + b at every row x of a batch. G, g: gradients of the loss by W, b. s, A_c: running mean and centred
second moment of x (without b about 0). delta = damping * mean(diag A_c). By rows, momentum m after the solve:

    (G - g s^T, g) <- (C + 0.1 c I)^(-1/2) (G - g s^T, g)            (C of all outputs: whitening.py)
    dW = (G - g s^T) (A_c + delta I)^-exponent,   db = g - dW s      (argmax of the augmented Hamiltonian)
    with exponent 1/2, for A_c of several inputs: what G has along its eigenvectors     (directions.py)
    rho_i^2 = running mean of dW_i A_c dW_i^T + g_i^2                (squared change of output i)
    v <- m v + (1 - m) dW / rho,   W <- W - lr (m v + (1 - m) dW / rho),   b by db likewise

The exponent is 1/2 or 1 by how many rows a step sees (certainty.py). A layer that sees twice as many as it
has inputs or outputs takes the polar step: momentum first, M = (A_c + delta I)^(exponent / 2) and one rho,
the root mean square of the changes of all outputs,

    [O, o] = polar factor of [(G - g s^T) M^-1, g],   dW = O M^-1 / rho,   db = o / rho - dW s
Steps are shorter where gradients fade, and of outputs with hardly any (own_share), and reach no further than
weights allow (fading.py). The loss is not passed. Shapes: x (row, d), W (n, d); steps (n, d + k), b last.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pontryagin.affine.polar import polar_factor
from pontryagin.optim.averages import entering
from pontryagin.optim.certainty import exponent_for
from pontryagin.optim.own_units import First, has_units, units


@dataclass
class State:
    """A layer, EMSA's settings, and what lasts, 0 at first. basis, values: A_c = Q diag(values) Q^T. outputs:
    C, of so many that were seen. square: rho^2, the mean of so many renewals. size: of |G|^2. long: the mean
    of one of both over the last ninth of all steps; peak: the largest. reach: the longest lr dW allowed."""

    layer: nn.Linear
    lr: float = 0.03
    damping: float = 0.1
    exponent: float = -1.0  # by rows
    momentum: float = 0.8
    rho_decay: float = 0.95
    weight_decay: float = 0.0
    averaging: float = 8.0
    are_data: bool = False  # x: each input in its own unit (own_units.py), where rows are twice as many

    def __post_init__(self) -> None:
        (n, d), k = self.layer.weight.shape, int(self.layer.bias is not None)
        zeros, self.is_polar = self.layer.weight.detach().new_zeros, False
        self.steps = self.refreshes = self.renewals = 0
        self.mean, self.moment, self.basis, self.values = zeros(k, d), zeros(d, d), zeros(d, d), zeros(d)
        self.velocity, self.average, self.square = zeros(n, d + k), zeros(n, d + k), zeros(n)
        self.unit, self.outputs, self.seen = torch.ones_like(self.values), torch.eye(n).to(zeros(())), 0
        self.along = zeros(d)
        self.size, self.long, self.peak, self.reach = zeros(()), zeros(()), zeros(()), zeros(())


@torch.no_grad()
def step(state: State, x: Tensor, refresh: bool = True, looked: bool = True) -> None:
    """A step of the layer, its gradients in .grad and x its inputs: layers do not know of each other.
    refresh: of C and the moments; looked: of what G has along directions."""
    layer, n, state.steps = state.layer, len(state.layer.weight), state.steps + 1
    if refresh:
        _refresh(state, x)
    if state.steps <= 20 or state.steps % 4 == 1:
        state.reach = 0.3 * layer.weight.norm().clamp_min(n**0.5)
    gradient = torch.cat([p.grad.view(n, -1) for p in layer.parameters() if p.grad is not None], 1)
    change = -state.lr * (_polar_step(state, gradient) if state.is_polar else
                          _row_step(state, gradient, refresh, looked))
    change[:, :layer.in_features] -= state.lr * state.weight_decay * layer.weight
    for parameter, part in zip(layer.parameters(), change.tensor_split([layer.in_features], 1), strict=False):
        parameter.add_(part.view_as(parameter))
    state.average.lerp_(torch.cat([parameter.view(n, -1) for parameter in layer.parameters()], 1),
                        entering(state.steps, state.averaging))


def _refresh(state: State, x: Tensor) -> None:
    """s and A_c take a batch in, with weight max(0.15, 1 / refreshes), never 1.25 times behind it."""
    state.refreshes += 1
    rows = len(x) / max(state.layer.weight.shape)
    if state.refreshes == 1:
        state.is_polar = rows >= 2
        state.are_data &= not state.is_polar and has_units(First(len(x), True), x.shape[1])
    state.exponent = exponent_for(rows, True) if state.exponent < 0 else state.exponent
    weight, mean = max(0.15, 1 / state.refreshes), x.mean(0, keepdim=True)[:len(state.mean)]
    centred, offset = x - mean.sum(0), mean - state.mean
    moment = centred.T @ centred / len(x) + (1 - weight) * offset.T @ offset
    if state.values.sum() > 0:
        state.moment *= (moment.trace() / 1.25 / state.values.sum()).clamp_min(1)
    state.mean.lerp_(mean, weight)
    state.moment.lerp_(moment, weight)
    state.unit = units(state.moment[None])[0] if state.are_data else state.unit
    before = state.basis
    values, state.basis = torch.linalg.eigh(state.moment / state.unit / state.unit[:, None])
    state.along = state.along @ (before.T @ state.basis)**2
    rounding = torch.finfo(x.dtype).eps * (state.mean / state.unit).square().sum() / x.shape[1]
    state.values = values.clamp_min(float(rounding))
    _level(state)


def _row_step(state: State, gradient: Tensor, refresh: bool, looked: bool) -> Tensor:
    G, g = gradient.tensor_split([len(state.values)], 1)
    G, n, (values, basis) = G - g @ state.mean, len(G), torch.linalg.eigh(state.outputs)
    Y = torch.cat([G / state.unit @ _power(state, state.exponent - 0.5), g], 1)  # Y Y^T: dW A dW^T + g g^T
    if (refresh or not state.seen) and n > 1 and Y.any():
        state.seen += 1
        state.outputs.lerp_(n * Y @ Y.T / Y.square().sum(), max(0.15, 1 / state.seen))
    R = (basis * (values + 0.1 * values.mean()) ** -0.5) @ basis.T if n > 1 else torch.eye(n).to(G)
    share, G, g = 2 * R.diagonal() * torch.cat([G, g], 1).norm(dim=1), R @ G, R @ g
    share = (share / torch.cat([G, g], 1).norm(dim=1)).nan_to_num(1.0).clamp_max(1)[:, None]
    if state.exponent == 0.5 and len(state.values) > 1:
        dW = _along_directions(state, G / state.unit, looked)
        square = state.values.mean() * dW.square().sum(1) + g.square().sum(1)
    else:
        dW = G / state.unit @ _power(state, state.exponent)
        square = _squared_change(state, dW, g)
    dW = dW / state.unit
    state.square.lerp_(square, (1 - state.rho_decay) / (1 - state.rho_decay**state.steps))
    known = torch.maximum(state.square, _floor(state, square, 1e-3))
    known = torch.maximum(known, square * (state.long.mean() < 1e-4 * state.peak))  # faded ones that rise
    known = known + known.mean() * (0.01 if len(known) > 1 else 1e-6)
    scale = torch.where(known > 0, known**-0.5, 0.0)[:, None]
    found = _within_reach(state, torch.cat([dW, g - dW @ state.mean.T], 1) * scale * share)
    return torch.lerp(found, state.velocity.lerp_(found, 1 - state.momentum), state.momentum)


def _along_directions(state: State, G: Tensor, looked: bool) -> Tensor:
    H = G @ state.basis
    if looked or not state.along.any():
        state.along.lerp_(H.square().mean(0), 0.1)
        _level(state)
    c = state.damping + (state.along / state.along.mean() if state.along.any() else state.along + 1)
    c = torch.where(c > (torch.finfo(H.dtype).eps * len(c))**2, c, torch.inf)
    return (H * c**-0.5) @ state.basis.T * state.values.mean()**-0.5


def _level(state: State) -> None:
    least = torch.finfo(state.values.dtype).eps * len(state.values) * state.values.max()
    alike = state.values <= least.clamp_min(state.values.min())
    state.along[alike] = state.along[alike].mean()


def _polar_step(state: State, gradient: Tensor) -> Tensor:
    """Its length is the momentum's beside the gradients', of which a polar factor knows nothing."""
    state.velocity.lerp_(gradient, 0.1 / (1 - 0.9**state.steps))
    ahead, size = torch.lerp(gradient, state.velocity, 0.9), gradient.square().sum()
    state.size.lerp_(size, 0.02 / (1 - 0.98**state.steps))
    known = torch.maximum(state.size, _floor(state, size, 1e-4)).sqrt()
    length = (ahead.norm() / (0.25 * known)).clamp_max(1) if known > 0 else 0.0
    (G, g), root = ahead.tensor_split([len(state.values)], 1), _power(state, state.exponent / 2)
    polar = polar_factor(torch.cat([(G - g @ state.mean) @ root, g], 1)[None])[0]
    dW, moved = polar[:, :len(root)] @ root, polar[:, len(root):]
    square, every = _squared_change(state, dW, moved), 1 if state.steps <= 20 else 4
    if square.sum() > 0 and ((state.steps - 1) % every == 0 or not state.renewals):
        state.renewals += every
        state.square.lerp_(square, (1 - state.rho_decay**every) / (1 - state.rho_decay**state.renewals))
    scale = length * state.square.mean() ** -0.5 if state.renewals else 0.0
    share = (2 * gradient.norm(dim=1) / ahead.norm(dim=1)).nan_to_num(1.0).clamp_max(1)[:, None]
    return _within_reach(state, torch.cat([dW, moved - dW @ state.mean.T], 1) * scale * share)


def _power(state: State, exponent: float) -> Tensor:
    """(A_c + delta I)^-exponent; without damping 0 along inputs that do not vary."""
    shifted, values = state.values + state.damping * state.values.mean(), state.values
    known = shifted > torch.finfo(values.dtype).eps * len(values) * values.max()
    return (state.basis * torch.where(known, shifted, torch.inf) ** -exponent) @ state.basis.T


def _squared_change(state: State, dW: Tensor, moved: Tensor) -> Tensor:
    """Of each output, the mean over rows. moved: dW s + db, (n, k)."""
    return ((dW @ state.basis) ** 2 * state.values).sum(1) + (moved**2).sum(1)


def _floor(state: State, square: Tensor, level: float) -> Tensor:
    """The least that a mean square counts for: a part of the long mean, and of its peak, which is slow."""
    state.long = torch.lerp(state.long, square, 9 / (state.steps + 8))
    long, least, most = state.long.mean(), 1 - 0.5 / state.steps, 1 + 18 / state.steps
    kept = state.steps >= 20 and state.peak > 0
    state.peak = long.clamp(least * state.peak, most * state.peak) if kept else long
    return torch.maximum(state.long / 16, level**2 * state.peak)


def _within_reach(state: State, found: Tensor) -> Tensor:
    return found * (state.reach / (state.lr * found[:, :len(state.values)].norm())).clamp_max(1)


if __name__ == "__main__":
    state, x = State(layer := nn.Linear(4, 2, dtype=torch.float64)), torch.rand(64, 4, dtype=torch.float64)
    for _ in range(100):
        layer.zero_grad()
        (loss := (layer(x).tanh() - x[:, :2].sin()).square().mean()).backward()
        step(state, x)
    print(f"the loss after 100 steps: {loss.item():.1e}")
