"""EMSA in a loop with Accelerate, on handwritten digits.

```
python examples/accelerate_loop.py
```

It needs accelerate: the extra `integration`.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

from pontryagin.optim import EMSA

try:
    from accelerate import Accelerator
except ImportError as error:
    sys.exit(f"this example needs {error.name}: pip install '.[integration]'")

torch.manual_seed(0)
x, y = (torch.tensor(values) for values in load_digits(return_X_y=True))
data = torch.utils.data.TensorDataset(x.float() / 16, y)
train, test = torch.utils.data.random_split(data, [1437, 360])

accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
emsa = EMSA(model)  # on the model itself, before it is prepared
model, optimizer, batches = accelerator.prepare(
    model, emsa, torch.utils.data.DataLoader(train, 32, shuffle=True))

losses = []
for _ in range(4):
    for inputs, targets in batches:
        with accelerator.accumulate(model):
            loss = nn.functional.cross_entropy(model(inputs), targets)
            accelerator.backward(loss)
            optimizer.step(lambda loss=loss: loss)  # it bounds the step; this wrapper takes a closure
            optimizer.zero_grad()
        losses.append(loss.item())

emsa.eval()  # the averages of the weights
inputs, targets = test[:]
with torch.no_grad():
    accuracy = (model(inputs).argmax(1) == targets).float().mean().item()
print(f"loss of a batch: {losses[0]:.3f} at first, {sum(losses[-20:]) / 20:.3f} at the end")
print("Accelerate accumulated two batches a step, and the averages classify "
      f"{accuracy:.1%} of the test digits rightly.")
