"""What a live EMSA, and fifty that are gone, cost the passes of a model: process time of forward and
backward, as ratios.

`python -m benchmarks.no_trace`: three models take turns pass by pass, the same network without an optimizer,
beside a live EMSA in iterations without a look, and after fifty optimizers were made, used and dropped.
Medians over rounds; and memory in use.
"""

import gc
from argparse import ArgumentParser
from functools import partial
from statistics import median
from time import process_time

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from benchmarks.measure import in_turn
from pontryagin.optim import EMSA


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [part for _ in range(12) for part in (nn.Linear(128, 128), nn.LayerNorm(128), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(128, 10))


def one_pass(model: nn.Module, x: Tensor) -> None:
    model.zero_grad()
    model(x).square().mean().backward()


def steps(model: nn.Module, optimizer: EMSA, x: Tensor, count: int) -> None:
    for _ in range(count):
        one_pass(model, x)
        optimizer.step()


def tensors(model: nn.Module) -> int:
    """Bytes of all tensors that are alive. A gradient shows only once it has been asked for."""
    gc.collect()
    kept = [parameter.grad for parameter in model.parameters()]
    found = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in gc.get_objects()
             if type(each) in (Tensor, nn.Parameter)}
    del kept
    return sum(found.values())


def main() -> None:
    options = ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=400)
    given = options.parse_args()
    torch.set_num_threads(1)
    x = torch.randn(256, 128)
    plain, live, used = network(), network(), network()
    optimizer = EMSA(live)
    steps(live, optimizer, x, 17)  # the next look is due before step 20
    one_pass(used, x)
    before = tensors(used)
    for _ in range(50):
        steps(used, EMSA(used), x, 1)
    after = tensors(used)
    assert not torch_modules._global_forward_hooks, "hooks are left where no look is due"
    seconds = in_turn({name: partial(one_pass, model, x) for name, model in
                       (("plain", plain), ("live", live), ("used", used))}, given.rounds, process_time)
    _, live_ratio, used_ratio = (median(each) / median(seconds["plain"]) for each in seconds.values())
    print(f"forward and backward, {1e3 * median(seconds['plain']):.2f} ms: beside a live EMSA "
          f"{live_ratio:.3f} of it, after fifty {used_ratio:.3f}; tensors {after / 1e6:.2f} MB, before the "
          f"fifty {before / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
