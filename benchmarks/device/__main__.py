"""EMSA on a GPU, beside fused AdamW and Muon: cost, device synchronizations, memory, loss on the clock.

    python -m benchmarks.device --out FOLDER [--minutes 9] [--parts cost,race,profile]
    python -m benchmarks.device --rehearse            # tiny sizes on a CPU

Networks: a ResNet-18 with batch norm, a vision transformer (bfloat16 autocast), a language model of bytes
(likewise); for cost alone the ResNet in bfloat16 and channels_last too, and a model of 32,768 tokens.
Images are those of MNIST's kind in $PONTRYAGIN_DATA (fashion-mnist, else mnist), else synthetic; text is what
Python's installation and /usr/share/doc hold. All methods start from equal weights and see equal batches.

Parts, in this order; each is written when it is done, and skipped with a line when no time is left for it:

cost     medians over steps, by CUDA events, of forward and backward pass alone, AdamW, Muon, and EMSA by kind
         of step (ordinary, probe, refresh: some are forced), once more with its products in TF32; peak
         memory; synchronizations by call site
race     rates fall linearly to 0 over as many steps as time allows, the same for all methods; held-out and
         train loss at twenty points (untimed); rivals have three rates and a warm-up of a twentieth
profile  torch.profiler's tables of ordinary and refresh steps of the language model

Files: steps.csv, costs.csv, syncs.csv, curves.csv, results.json, profile.txt, report.md.
"""

import json
import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.device.costs import Cost, costs_of
from benchmarks.device.measures import GIB
from benchmarks.device.output import Deadline, Output, part
from benchmarks.device.profiles import profile
from benchmarks.device.races import races_of
from benchmarks.device.tables import cost_table, crossing_table, race_table, sync_table
from benchmarks.device.tasks import TINY, Sizes, Task, image_tasks, text_tasks


def facts(device: torch.device, sources: dict[str, str]) -> dict[str, Any]:
    """Of machine and versions."""
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "data": sources,
        "Muon": "torch.optim" if hasattr(torch.optim, "Muon") else "pontryagin",
        "float32 products": torch.get_float32_matmul_precision(),
        "convolutions in TF32": torch.backends.cudnn.allow_tf32,
    }
    if device.type == "cuda":
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "memory": torch.cuda.get_device_properties(0).total_memory / GIB,
        }
    return found


def prepare(device: torch.device, sizes: Sizes, wanted: Sequence[str], out: Output) -> list[Task]:
    """The tasks whose data are to be had, those that race first."""
    tasks: list[Task] = []
    sources: dict[str, str] = {}
    for name, make in (("text", text_tasks), ("images", image_tasks)):
        with part(out, f"data: {name}"):
            found, sources[name] = make(sizes, device)
            tasks += found
    out.results["facts"] = facts(device, sources)
    out.say(json.dumps(out.results["facts"]))
    return sorted([task for task in tasks if not wanted or task.name in wanted], key=lambda task: -task.share)


def run(tasks: Sequence[Task], sizes: Sizes, deadline: Deadline, parts: Sequence[str], out: Output) -> None:
    """All parts."""
    costs: dict[str, dict[str, Cost]] = {}
    for task in tasks if "cost" in parts else ():
        costs[task.name] = costs_of(task, sizes, deadline, out)
        out.tables = [cost_table(costs), sync_table(out)]
        out.save()
    tables, races = out.tables, []
    racing = [task for task in tasks if task.share] if "race" in parts else []
    for n, task in enumerate(racing):
        with part(out, f"races on {task.name}"):
            share = task.share / sum(other.share for other in racing[n:])
            races += races_of(task, costs.get(task.name, {}), share, sizes, deadline, out)
            out.tables = [crossing_table(races), *tables, race_table(races)]
    for task in [task for task in tasks if task.name == "lm"] if "profile" in parts else ():
        with part(out, "profile"):
            deadline.need(10.0 if sizes is not TINY else 0.0)
            profile(task, sizes, deadline, out)


def main() -> int:
    """Run, and print the tables."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "runs/device"))
    parser.add_argument("--minutes", type=float, default=9.0,
                        help="for everything, from the start of Python on")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on a CPU")
    parser.add_argument("--parts", default="cost,race,profile")
    parser.add_argument("--networks", default="",
                        help="some of: lm,resnet,vit,lm 32k tokens,resnet bf16 channels_last")
    options = parser.parse_args()
    if not options.rehearse and not torch.cuda.is_available():
        print("there is no GPU: try --rehearse", flush=True)
        return 1
    device, sizes = torch.device("cpu" if options.rehearse else "cuda"), TINY if options.rehearse else Sizes()
    torch.backends.cudnn.benchmark = True
    deadline, out = Deadline(options.minutes), Output(options.out)
    wanted = [name for name in options.networks.split(",") if name]
    run(prepare(device, sizes, wanted, out), sizes, deadline, options.parts.split(","), out)
    out.save()
    print("\n" + out.report(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
