"""torch.profiler's tables of single steps."""

import json
import re
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Generator, nn

from benchmarks.device.measures import wait
from benchmarks.device.methods import force, kind_of, optimizer_of, passes, step_of
from benchmarks.device.output import Deadline, Output
from benchmarks.device.tasks import Sizes, Task


def profile(task: Task, sizes: Sizes, deadline: Deadline, out: Output) -> None:
    """Tables of single steps: EMSA's ordinary and refresh, whole and the optimizer alone; AdamW's beside."""
    for method in ("EMSA", "AdamW"):
        model = task.model().train()
        optimizer = optimizer_of(method, model, task)
        batches = task.generator(0)
        iterate = partial(_iterate, task, model, optimizer, batches)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(sizes.warm):
                iterate()
            _profiled("warm-up of the profiler", iterate, None)
            for kind in ("ordinary", "refresh") if method == "EMSA" else ("ordinary",):
                for whole in (False, True):
                    deadline.need(2.0)
                    _until(kind, optimizer, iterate)
                    call = iterate
                    if not whole:
                        loss = passes(task, model, optimizer, task.draw(batches))
                        call = partial(step_of, optimizer, loss)
                    what = "iteration" if whole else "optimizer.step()"
                    _profiled(f"{method} on {task.name}: {kind}, {what}", call, out)


def _iterate(task: Task, model: nn.Module, optimizer: Any, batches: Generator) -> None:
    step_of(optimizer, passes(task, model, optimizer, task.draw(batches)))


def _until(kind: str, optimizer: Any, iterate: Callable[[], None]) -> None:
    """Iterate until the next step is of a kind."""
    for _ in range(40):
        if kind_of(optimizer) == kind:
            return
        if kind == "refresh":
            force(optimizer)
        iterate()


def _profiled(title: str, call: Callable[[], Any], out: Output | None) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    wait()
    with torch.profiler.profile(activities=activities) as profiler:
        began = time.perf_counter()
        call()
        enqueued = time.perf_counter() - began
        wait()
        seconds = time.perf_counter() - began
    if out is None:
        return
    found = profiler.key_averages()
    runtime = {one.key: one.count for one in found if re.fullmatch(r"cu(da)?[A-Z]\w*", one.key)}
    head = f"\n\n# {title}\n\nhost {1e3 * enqueued:.2f} ms, device done after {1e3 * seconds:.2f} ms\n"
    out.text("profile.txt", head + f"calls of the runtime: {json.dumps(runtime)}\n")
    for keys in (("self_device_time_total", "self_cuda_time_total"), ("self_cpu_time_total",)):
        out.text("profile.txt", f"\n## by {keys[0]}\n\n" + _sorted(found, keys) + "\n")
    out.results.setdefault("profile", {})[title] = {
        "host_ms": 1e3 * enqueued, "ms": 1e3 * seconds, "runtime": runtime}
    out.say(f"  {title}: host {1e3 * enqueued:.2f} ms, in all {1e3 * seconds:.2f} ms; {runtime}")


def _sorted(found: Any, keys: Sequence[str]) -> str:
    """The table by the first key that this torch knows."""
    for key in keys:
        try:
            return found.table(sort_by=key, row_limit=25, max_name_column_width=90)
        except (AttributeError, KeyError, TypeError, AssertionError):
            continue
    return found.table(row_limit=25)
