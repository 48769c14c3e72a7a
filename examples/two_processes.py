"""Two processes, each with its half of every batch, on CPUs by gloo.

```
torchrun --standalone --nproc-per-node 2 examples/two_processes.py
```
"""

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pontryagin.optim import EMSA


def main() -> None:
    """Of each process."""
    torch.manual_seed(0)  # the same weights and the same order of samples everywhere
    x, y = (torch.tensor(values) for values in load_digits(return_X_y=True))
    x, order = x.float() / 16, torch.randperm(len(y))
    test, train = order[:360], order[360:]
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = EMSA(model)  # on the model itself; it finds the processes by the wrapper
    parallel = DistributedDataParallel(model)

    rank, processes = dist.get_rank(), dist.get_world_size()
    for _ in range(4):
        for batch in train[torch.randperm(len(train))].split(64):
            if len(batch) < 64:
                continue
            mine = batch[rank::processes]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(parallel(x[mine]), y[mine])
            loss.backward()
            optimizer.step(loss=loss)

    weights = [torch.empty_like(model[0].weight) for _ in range(processes)]
    dist.all_gather(weights, model[0].weight.detach())
    optimizer.eval()
    with torch.no_grad():
        accuracy = (model(x[test]).argmax(1) == y[test]).float().mean().item()
    if rank == 0:
        same = all(torch.equal(one, weights[0]) for one in weights)
        print(f"test accuracy of the averages: {accuracy:.1%}")
        print(f"The weights of {processes} processes are {'equal bit by bit' if same else 'NOT EQUAL'} "
              "after training.")


dist.init_process_group("gloo")
try:
    main()
finally:
    dist.destroy_process_group()
