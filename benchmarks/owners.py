"""EMSA with owners on paper: a transformer of seven billion parameters under fully_shard, by its matrices.

`python -m benchmarks.owners` prints docs/tables/owners-on-paper.csv. Owners are those that the code assigns
(by flops, the largest first), so that the largest of them is told too, which is the output layer's from 64
devices on.
"""

import csv
import sys

from pontryagin.distributed.assignment import assign, loads
from pontryagin.optim.ownership import argmax_flops

WIDTH, INNER, VOCABULARY, BLOCKS = 4096, 11008, 32000, 32
MATRICES = [(VOCABULARY, WIDTH), *[(WIDTH, WIDTH)] * (4 * BLOCKS), *[(INNER, WIDTH)] * (2 * BLOCKS),
            *[(WIDTH, INNER)] * BLOCKS, (VOCABULARY, WIDTH)]
"""Of a Llama: the table, whose argmax is one multiplication an entry, blocks, the output layer."""
DEVICES = (8, 64, 512)
TOKENS, FLOPS, LINK, BYTES = 4e6, 4e14, 5e10, 4
"""Assumed: tokens a step; flop/s a device, two fifths of an H100's peak in bfloat16; bytes/s a link; of a
number."""
RANK = 32
"""Of the metric, EMSA's default."""
HEADER = ("devices", "GB a device", "at the largest owner", "step, s", "fully_shard sends, GB",
          "owners send, GB", "at the largest", "argmax at the largest, s", "of the step", "with what is sent")


def row(devices: int) -> list[str]:
    """Memory, step, what is sent and the argmax of a device."""
    numbers = [float(outputs * inputs) for outputs, inputs in MATRICES]
    flops = [numbers[0], *(argmax_flops(*sizes, 2 * RANK) for sizes in MATRICES[1:])]
    owners, total = assign(flops, devices), sum(numbers)
    own, busy = max(loads(numbers, owners, devices)), max(loads(flops, owners, devices)) / FLOPS
    step, away = 6 * total * TOKENS / devices / FLOPS, (devices - 1) / devices
    sharded = 3 * total / devices  # weights, gradients, averages; the momentum is the owner's
    sent = 2 * own * away * BYTES
    return [str(devices), _giga((sharded + total / devices) * BYTES), _giga((sharded + own) * BYTES),
            f"{step:.3g}", _giga(3 * total * away * BYTES), _giga(2 * total * away / devices * BYTES),
            _giga(sent), f"{busy:.2g}", f"{busy / step:.1%}", f"{(busy + sent / LINK) / step:.1%}"]


def _giga(value: float) -> str:
    return f"{value / 1e9:.2g}" if value < 1e10 else f"{value / 1e9:.3g}"


if __name__ == "__main__":
    csv.writer(sys.stdout, lineterminator="\n").writerows([HEADER, *map(row, DEVICES)])
