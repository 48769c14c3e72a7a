"""SIGKILL at random moments of real runs, each resumed: `python tests/train/kills.py KILLS SEED FOLDER`.

This process loads everything once and never trains; every run is a fork of it. A run is killed, checked for
files half-written, and resumed until it is complete; then its models and its table are compared bit by bit
with those of a run left alone. The next run begins until there have been so many kills. Prints how many there
were, and of what.
"""

import csv
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from tasks import classification

from pontryagin.run import checkpoint
from pontryagin.run.callbacks import ProgressDisplay
from pontryagin.run.figures import training as figures
from pontryagin.run.history import COLUMNS
from pontryagin.run.settings import RunSettings
from pontryagin.run.training import run_training


def train(out: Path) -> None:
    """Two methods, two seeds, a checkpoint at every turn; the model draws random numbers in every pass."""
    settings = RunSettings(out=out, methods=("emsa", "adam"), seeds=(0, 1), epochs=1, batch_size=20,
                           resume=True, checkpoint_every=0.0)
    run_training(classification(), settings, "kills", ProgressDisplay())


def forked(out: Path) -> int:
    """The process that trains into `out`."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            train(out)
            code = 0
        finally:
            os._exit(code)
    return process


def killed_after(out: Path, seconds: float) -> bool:
    """Train for so long at most; whether the run had to be killed."""
    process, end = forked(out), time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            assert status == 0, "the run failed by itself"
            return False
        time.sleep(0.0005)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return True
    assert status == 0, "the run failed by itself"
    return False


def check_whole(out: Path) -> None:
    """Every file that has its own name is whole, at any moment."""
    for path in out.rglob("*"):
        if not path.is_file() or path.name.startswith("."):
            continue
        content = path.read_bytes()
        if path.suffix == ".pt":
            checkpoint.read(path)
        elif path.suffix == ".json":
            json.loads(content)
        elif path.suffix == ".csv":
            lines = list(csv.reader(content.decode().splitlines()))
            assert content == b"" or content.endswith(b"\n"), f"{path}: half a row"
            assert all(len(line) == len(COLUMNS) for line in lines), f"{path}: half a row"
        elif path.suffix == ".html":
            assert content.endswith(b"</html>\n"), path
        elif path.suffix == ".png":
            assert content.endswith(b"IEND\xaeB`\x82"), path
        else:
            raise AssertionError(f"{path}: an unknown file")


def moment(out: Path) -> str:
    """Where the run was, by what it left."""
    if not (out / "checkpoint.pt").exists():
        previous = (out / "checkpoint.previous.pt").exists()
        return "between two checkpoints" if previous else "before the first checkpoint"
    if any(".pt." in path.name for path in out.rglob(".*.tmp")):
        return "while a checkpoint was written"
    if any(out.rglob(".*.tmp")) or checkpoint.read(out / "checkpoint.pt")["index"] == 2:
        return "while the report was written"
    return "in training"


def result(out: Path) -> tuple[dict[str, torch.Tensor], list[list[str]]]:
    """All controls and buffers by model and name, and the table without seconds."""
    tensors = {f"{path.stem} {name}": value for path in (out / "models").iterdir()
               for name, value in checkpoint.read(path)["model"].items()}
    with (out / "metrics.csv").open(newline="") as file:
        return tensors, [[cell for name, cell in zip(COLUMNS, row, strict=True) if name != "seconds"]
                         for row in csv.reader(file)]


def main(kills: int, seed: int, folder: Path) -> None:
    """See above."""
    torch.set_num_threads(1)
    figures.losses = lambda path, samples: None  # pictures would take most of the time
    random_moment = random.Random(seed)
    begun = time.monotonic()
    assert not killed_after(folder / "whole", 600.0)
    length = time.monotonic() - begun
    expected, table = result(folder / "whole")
    moments: Counter[str] = Counter()
    run = 0
    while moments.total() < kills:
        out = folder / f"run{run}"
        while True:
            if not killed_after(out,
                                random_moment.uniform(0, 0.7 * length) if moments.total() < kills else 600.0):
                break
            check_whole(out)
            moments[moment(out)] += 1
        found, found_table = result(out)
        assert found.keys() == expected.keys()
        assert all(torch.equal(value, expected[name])
                   for name, value in found.items()), f"{out}: other controls"
        assert found_table == table, f"{out}: another table"
        assert not list(out.rglob(".*.tmp")), f"{out}: something is left half-written"
        check_whole(out)
        run += 1
        assert run < 20 + 20 * kills, "the runs end before they can be killed"
    print(json.dumps({"kills": moments.total(), "runs": run, "moments": moments, "equal": True}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
