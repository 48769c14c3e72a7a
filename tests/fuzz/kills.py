"""SIGKILL, SIGTERM and SIGINT at random moments of real runs, each resumed: `python tests/fuzz/kills.py KILLS
SEED FOLDER [NAMES]`, or `make kills`.

This process loads everything once and never trains; every run is a fork of it, or two or three that work
together, which are ended as torchrun ends them. A run is stopped, checked for files half-written, for
processes that are left, for tracebacks and for more than a line a process, and resumed until it is complete;
then its models and its table are compared bit by bit with those of a run left alone. Prints how many stops
there were, and of what.
"""

import csv
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import Dataset

from pontryagin.cli import _leave, main
from pontryagin.run import checkpoint
from pontryagin.run.exit_status import LOST
from pontryagin.run.history import COLUMNS

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KEPT: list[Any] = [None]
"""The store of the last run of several processes."""
DEAF = (signal.SIGINT, signal.SIGTERM)
LIMIT = 900.0
"""Seconds after which a run hangs."""


class Points(Dataset[Any]):
    """Draws random numbers for every item."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, row: int) -> Any:
        x = torch.randn(6, generator=torch.Generator().manual_seed(row))
        return x + 0.1 * torch.randn(6), int(x[0] > 0) + int(x[1] > 0)


def _tensors() -> Any:
    x = torch.randn(80, 6, generator=torch.Generator().manual_seed(1))
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return (x[:60], y[:60]), (x[60:], y[60:])


def _stacked(items: list[Any]) -> Any:
    return torch.stack([x for x, _ in items]), torch.tensor([y for _, y in items])


def _right(output: Tensor, target: Tensor) -> Tensor:
    return (output.argmax(1) == target).double().mean()


THEIRS: Any = SimpleNamespace(
    __name__="theirs", __file__="theirs.py", tensors=_tensors, points=lambda: (Points(), Points()),
    net=lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2),
                              nn.Linear(8, 3)),
    plain=lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), collate=_stacked, right=_right)


@dataclass(frozen=True)
class Configuration:
    """words: of the command, but for its folder; ranks: processes."""

    words: str
    ranks: int = 1
    net: str = "net"
    data: str = "tensors"

    def line(self, out: Path) -> list[str]:
        """The command line."""
        return [*self.words.split(), "--model", f"theirs:{self.net}", "--data", f"theirs:{self.data}",
                "--batch-size", "12", "--threads", "1", "--checkpoint-every", "0", "--out", str(out)]


CONFIGURATIONS = {
    "adam": Configuration("train --method adam --epochs 4"),
    "two-methods-two-seeds": Configuration("compare --methods emsa,adam --seeds 2 --epochs 2"),
    "paper": Configuration("compare --methods emsa-paper,sgd-momentum --epochs 1", net="plain"),
    "found": Configuration("train --method sgd --lr find --epochs 4"),
    "tuned": Configuration("compare --methods adam,adagrad --tune 3 --epochs 2"),
    "recipe": Configuration(
        "compare --methods emsa,adam --epochs 2 --num-workers 1 --collate theirs:collate "
        "--metric theirs:right --validation 0.2 --patience 4 --warm-up 0.2 --clip-norm 0.1 --autocast",
        data="points"),
    "discrete": Configuration("compare --methods binaryconnect,li-hao,emsa --options.emsa.admissible ternary "
                              "--epochs 2"),
    "weighted": Configuration("train --method adamw --seeds 3,5 --class-weights balanced --schedule cosine "
                              "--epochs 2 --dtype float64 --target-accuracy 1"),
    "two-processes": Configuration("train --method emsa --epochs 2", ranks=2),
    "three-processes": Configuration(
        "compare --methods adam,emsa --class-weights 1,2,3 --warm-up 2 --epochs 1", ranks=3),
}


def _process(words: list[str], log: Path, environment: dict[str, str]) -> int:
    """A fork with a command line, printing into a file. It is deaf until the command listens: an interpreter
    that is only starting is not what is looked at."""
    signal.pthread_sigmask(signal.SIG_BLOCK, DEAF)
    process = os.fork()
    if process:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, DEAF)
        return process
    code = 99
    try:
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.environ.update(environment)
        sys.argv = ["pontryagin", *words]
        for number in DEAF:
            signal.signal(number, _leave)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, DEAF)
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:  # noqa: BLE001 # which is what this program looks for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def started(words: list[str], ranks: int, log: Path) -> list[int]:
    """The processes of a run."""
    if ranks == 1:
        return [_process(words, log, {})]
    # kept by this process, as torchrun keeps it
    store = distributed.TCPStore("127.0.0.1", 0, ranks, is_master=True, wait_for_workers=False)
    KEPT[0] = store
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": str(ranks),
              "TORCHELASTIC_RUN_ID": "kills", "TORCHELASTIC_USE_AGENT_STORE": "True",
              "GLOO_SOCKET_IFNAME": "lo"}
    return [_process(words, log.with_suffix(f".log{rank}"),
                     common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(ranks)]


def ended(processes: list[int], stop: Callable[[], signal.Signals | None],
          chosen: random.Random) -> list[int]:
    """The statuses of a run, negative for signals, that is stopped when `stop` says so. As torchrun does, the
    others are ended when one has ended otherwise than well."""
    statuses: dict[int, int] = {}
    asked, failed, begun = False, 0.0, time.monotonic()
    while len(statuses) < len(processes):
        for process in processes:
            if process not in statuses:
                found, status = os.waitpid(process, os.WNOHANG)
                if found:
                    statuses[process] = os.waitstatus_to_exitcode(status)
        alive = [process for process in processes if process not in statuses]
        if any(statuses.values()) and alive and not failed:
            failed = time.monotonic()
            _send(alive, signal.SIGTERM)
        elif failed and time.monotonic() - failed > 5:
            _send(alive, signal.SIGKILL)
        elif not asked and alive and (number := stop()) is not None:
            asked = True
            _send(alive if number == signal.SIGINT else [chosen.choice(alive)], number)
        assert time.monotonic() - begun < LIMIT, "a run hangs"
        time.sleep(0.001)
    return [statuses[process] for process in processes]


def _send(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        os.kill(process, number)


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
        else:
            raise AssertionError(f"{path}: an unknown file")


def moment(out: Path) -> str:
    """Where the run was, by what it left."""
    if not (out / "checkpoint.pt").exists():
        previous = (out / "checkpoint.previous.pt").exists()
        return "between two checkpoints" if previous else "before the first checkpoint"
    if any(".pt." in path.name for path in out.rglob(".*.tmp")):
        return "while a checkpoint was written"
    return "while the report was written" if any(out.rglob(".*.tmp")) else "in training"


def result(out: Path) -> tuple[dict[str, Tensor], list[list[str]]]:
    """All controls and buffers by model and name, and the table without seconds."""
    tensors = {f"{path.stem} {name}": value for path in (out / "models").iterdir()
               for name, value in checkpoint.read(path)["model"].items()}
    with (out / "metrics.csv").open(newline="") as file:
        return tensors, [[cell for name, cell in zip(COLUMNS, row, strict=True) if name != "seconds"]
                         for row in csv.reader(file)]


def trigger(out: Path, rows: int, number: signal.Signals, chosen: random.Random
            ) -> Callable[[], signal.Signals | None]:
    """When a run is stopped: soon after its start, or when it has so many rows, and a moment later."""
    wanted = chosen.choice([-1, *range(rows)])
    pause = chosen.uniform(0, 0.5 if wanted < 0 else 0.05)
    since = [0.0]

    def stop() -> signal.Signals | None:
        path = out / "metrics.csv"
        if not since[0] and (wanted < 0 or (path.exists() and path.read_bytes().count(b"\n") > wanted)):
            since[0] = time.monotonic()
        return number if since[0] and time.monotonic() - since[0] > pause else None

    return stop


def left(words: list[str]) -> list[int]:
    """Processes of a run that are still there."""
    out = words[words.index("--out") + 1]
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")
            if int(path.name) != os.getpid() and _mentions(path, out)]


def _mentions(process: Path, out: str) -> bool:
    try:
        return any(os.readlink(handle).startswith(out) for handle in (process / "fd").iterdir())
    except OSError:
        return False


def told(log: Path) -> str:
    """What a run has printed."""
    return "".join(path.read_text(errors="replace") for path in sorted(log.parent.glob(f"{log.name}*")))


class Trial:
    """A configuration, stopped again and again."""

    def __init__(self, name: str, folder: Path, chosen: random.Random) -> None:
        self.name, self.one, self.folder, self.chosen = name, CONFIGURATIONS[name], folder / name, chosen
        self.folder.mkdir(parents=True)
        self.moments: Counter[str] = Counter()
        self.signals: Counter[str] = Counter()
        self.begun: Counter[str] = Counter()
        assert self.run("whole", None) == [0] * self.one.ranks, told(self.folder / "whole.log")
        self.expected = result(self.folder / "whole")
        self.runs = 0

    def run(self, name: str, stop: Callable[[], signal.Signals | None] | None) -> list[int]:
        """Begin it or go on; the statuses."""
        out, log = self.folder / name, self.folder / f"{name}.log"
        words = [*self.one.line(out), *(["--resume"] if out.exists() else [])]
        self.begun[name] += 1
        statuses = ended(started(words, self.one.ranks, log), stop or (lambda: None), self.chosen)
        deadline = time.monotonic() + 30  # processes that read notice the end of theirs within 5 seconds
        while found := left(words):
            assert time.monotonic() < deadline, f"{self.name}: {found} are left behind"
            time.sleep(0.05)
        text = told(log)
        assert not any(word in text for word in ("Traceback", "frame #")), text
        ended_alone = (0, 130, -9) if self.one.ranks == 1 else (0, 130, -9, LOST)
        assert {*statuses} <= {*ended_alone}, (statuses, text)
        assert text.count("pontryagin: ") <= self.one.ranks * self.begun[name], text
        return statuses

    def complete(self, stops: int) -> int:
        """One run, stopped at most so often, and compared; how often it was."""
        name, done = f"run{self.runs}", 0
        self.runs += 1
        out = self.folder / name
        while True:
            number = self.chosen.choice(SIGNALS)
            stop = trigger(out, len(self.expected[1]), number, self.chosen) if done < stops else None
            if not any(self.run(name, stop)):
                break
            assert stop is not None, told(self.folder / f"{name}.log")
            done += 1
            check_whole(out)
            self.signals[signal.Signals(number).name] += 1
            self.moments[moment(out)] += 1
        found, table = result(out)
        expected, whole = self.expected
        assert found.keys() == expected.keys(), f"{out}: other models"
        assert all(torch.equal(value, expected[key])
                   for key, value in found.items()), f"{out}: other controls"
        assert table == whole, f"{out}: another table"
        assert not list(out.rglob(".*.tmp")), f"{out}: something is left half-written"
        check_whole(out)
        return done


def _no_page(out: Path, context: object) -> Path:
    """Pictures would take most of the time."""
    path = out / "report.html"
    path.write_text("</html>\n")
    return path


def kills(number: int, seed: int, folder: Path, names: list[str]) -> dict[str, Any]:
    """So many stops, spread over the configurations of these names."""
    torch.set_num_threads(1)
    signals, moments, runs, total = Counter[str](), Counter[str](), 0, 0
    with mock.patch.dict(sys.modules, {"theirs": THEIRS}), mock.patch(
            "pontryagin.run.reports.training.write_report", _no_page):
        for place, name in enumerate(names):
            trial = Trial(name, folder, random.Random(f"{seed} {name}"))
            wanted = number // len(names) + (place < number % len(names))
            count = 0
            while count < wanted:
                count += trial.complete(wanted - count)
                assert trial.runs < 20 + 20 * wanted, "the runs end before they can be stopped"
            print(f"{name}: {dict(trial.signals)}, {trial.runs} runs", file=sys.stderr, flush=True)
            signals += trial.signals
            moments += trial.moments
            runs, total = runs + trial.runs, total + count
    return {"stops": total, "runs": runs, "signals": signals, "moments": moments, "equal": True}


if __name__ == "__main__":
    print(json.dumps(kills(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]),
                           sys.argv[4:] or list(CONFIGURATIONS))))
