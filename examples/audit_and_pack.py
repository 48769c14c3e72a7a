"""A trained net audited, the stages that bear it put into fewer bits, packed, and loaded again.

```
python examples/audit_and_pack.py
```
"""

import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import pontryagin
from pontryagin.export import load_packed, packed_state, save_packed, size_report, whole_state
from pontryagin.problem import Codebook, Ternary

torch.manual_seed(0)
x, y = (torch.tensor(values) for values in load_digits(return_X_y=True))
x, order = x.float() / 16, torch.randperm(len(y))
test, audited, train = order[:360], order[360:720], order[720:]


def network() -> nn.Module:
    """Three layers."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


def accuracy(model: nn.Module) -> float:
    """On the test samples."""
    with torch.no_grad():
        return (model(x[test]).argmax(1) == y[test]).float().mean().item()


model = network()
optimizer = torch.optim.Adam(model.parameters(), 3e-3)  # trained by whatever
for _ in range(10):
    for batch in train[torch.randperm(len(train))].split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()

audit = pontryagin.audit.audit(model, "cross-entropy", [(x[part], y[part]) for part in audited.split(45)],
                               sets=("int4", "ternary-rows"))
print(audit)

# ternary where that is predicted to cost less than a tenth of the loss, 4 bits elsewhere
sets = {}
for stage, restriction in audit.ranking("ternary-rows"):
    bears = restriction.predicted < 0.1 * audit.loss
    sets[stage.name] = Ternary("row") if bears else Codebook(4)
before = accuracy(model)
with torch.no_grad():
    for name, admissible in sets.items():
        weight = model.get_parameter(name)
        weight.copy_(admissible.project(weight))
after = accuracy(model)

state = packed_state(model.state_dict(), sets)
print(size_report(state))
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "digits.packed"
    save_packed(path, state)
    again = network()
    again.load_state_dict(whole_state(load_packed(path)))
assert torch.equal(again(x[test]), model(x[test])), "what was packed predicts the same, bit by bit"
print(f"The audit chose {', '.join(f'{type(chosen).__name__} for {name}' for name, chosen in sets.items())}: "
      f"test accuracy {before:.1%} before, {after:.1%} after, without any training.")
