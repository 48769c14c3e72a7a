"""EMSA in a loop with Accelerate, on handwritten digits.

```
python examples/accelerate_loop.py
```

It needs accelerate: the extra `integration`.
"""

import sys
import tempfile

import torch
from sklearn.datasets import load_digits
from torch import nn

from pontryagin.optim import EMSA, evaluate_averages

try:
    from accelerate import Accelerator
    from safetensors.torch import load_file
except ImportError as error:
    sys.exit(f"this example needs {error.name}: pip install '.[integration]'")

torch.manual_seed(0)
x, y = (torch.tensor(values) for values in load_digits(return_X_y=True))
data = torch.utils.data.TensorDataset(x.float() / 16, y)
train, test = torch.utils.data.random_split(data, [1437, 360])

accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
model, optimizer, batches = accelerator.prepare(
    model, EMSA(model), torch.utils.data.DataLoader(train, 32, shuffle=True))
evaluate_averages(model, optimizer)  # after prepare: what is evaluated and saved are the averages

inputs, targets = test[:]
losses = []
for epoch in range(4):
    model.train()
    for batch, labels in batches:
        with accelerator.accumulate(model):
            loss = nn.functional.cross_entropy(model(batch), labels)
            accelerator.backward(loss)
            optimizer.step(lambda loss=loss: loss)  # it bounds the step; this wrapper takes a closure
            optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        predicted = model(inputs).argmax(1)
    print(f"epoch {epoch + 1}: the averages classify {(predicted == targets).float().mean().item():.1%}")

with tempfile.TemporaryDirectory() as folder:
    accelerator.save_model(model, folder)
    model.load_state_dict(load_file(f"{folder}/model.safetensors"))
with torch.no_grad():
    are_saved = torch.equal(model(inputs).argmax(1), predicted)
print(f"loss of a batch: {losses[0]:.3f} at first, {sum(losses[-20:]) / 20:.3f} at the end")
print("Accelerate accumulated two batches a step, and the averages were "
      f"{'validated and saved' if are_saved else 'NOT SAVED'}.")
