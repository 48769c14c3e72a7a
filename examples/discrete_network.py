"""A network that is ternary from the first step to the last, beside rounding a whole one afterwards.

```
python examples/discrete_network.py
```
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from pontryagin.optim import EMSA
from pontryagin.problem import Ternary

x, y = (torch.tensor(values) for values in load_digits(return_X_y=True))
x, order = x.float() / 16, torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
test, train = order[:360], order[360:]
epochs, batch_size, ternary = 20, 64, Ternary("row")  # {-a_i, 0, a_i}, a scale for each output


def network() -> nn.Sequential:
    """Three layers; the first and second weights are to be ternary."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 128),
                         nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10))


def accuracy(model: nn.Module) -> float:
    """On the test samples."""
    model.eval()
    with torch.no_grad():
        return (model(x[test]).argmax(1) == y[test]).float().mean().item()


def train_by(model: nn.Module, optimizer: EMSA) -> None:
    """Rates, and with them the share of weights that may move, fall linearly to 0."""
    steps = epochs * (len(train) // batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
    for _ in range(epochs):
        for batch in train[torch.randperm(len(train))].split(batch_size):
            if len(batch) == batch_size:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
                loss.backward()
                optimizer.step(loss=loss)
                schedule.step()


whole = network()
optimizer = EMSA(whole)
train_by(whole, optimizer)
optimizer.eval()
whole_accuracy = accuracy(whole)
with torch.no_grad():
    for layer in (whole[0], whole[3]):
        layer.weight.copy_(ternary.project(layer.weight))
rounded_accuracy = accuracy(whole)

discrete = network()
train_by(discrete, EMSA(discrete, constraint={"0": ternary, "3": ternary}))
assert all(ternary.contains(discrete[layer].weight) for layer in (0, 3))
print(f"whole weights            {whole_accuracy:.1%}")
print(f"the same, rounded after  {rounded_accuracy:.1%}")
print(f"ternary all along        {accuracy(discrete):.1%}")
print(f"Trained inside the set, the net loses {whole_accuracy - accuracy(discrete):.1%} of accuracy; "
      f"rounded afterwards it loses {whole_accuracy - rounded_accuracy:.1%} (one seed).")
