"""A training loop of one's own: schedule, clipping, accumulation, autocast, averages; on handwritten digits.

```
python examples/own_loop.py
```
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from pontryagin.optim import EMSA

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16  # (sample, 1, 8, 8)
labels = torch.tensor(digits.target)
order = torch.randperm(len(labels))
test, train = order[:360], order[360:]

model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
                      nn.Flatten(), nn.Linear(32 * 9, 10))
epochs, batch_size, parts = 4, 64, 2  # each batch in two parts, as where memory is short
steps = epochs * (len(train) // batch_size)

optimizer = EMSA(model)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)  # linear to 0


def accuracy() -> float:
    """Of the weights that are in the model, on the test samples."""
    model.eval()
    with torch.no_grad():
        found = (model(images[test]).argmax(1) == labels[test]).float().mean().item()
    model.train()
    return found


for epoch in range(epochs):
    for batch in train[torch.randperm(len(train))].split(batch_size):
        if len(batch) < batch_size:
            continue
        optimizer.zero_grad()
        mean = 0.0
        for part in batch.chunk(parts):
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(model(images[part]), labels[part])
            (loss / parts).backward()
            mean += loss.item() / parts
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step(loss=mean)  # the loss that the gradients are of: it bounds the step
        schedule.step()
    weights = accuracy()
    optimizer.eval()   # the averages of the weights are in the model: evaluate and save these
    averages = accuracy()
    optimizer.train()  # the weights again
    print(f"epoch {epoch + 1}: test accuracy {weights:.1%} by the weights, {averages:.1%} by their averages")

optimizer.eval()
print(f"After {epochs} epochs the averages classify {accuracy():.1%} of the test digits rightly.")
