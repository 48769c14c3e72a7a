"""Wrong requests by the thousand: `python tests/fuzz/fuzz.py LINES SETS SEED`, or `make fuzz`.

Every request must end in one of two ways: it is begun (where work would begin, it is stopped), or it gets one
line and status 2, and nothing is left on disk. Ends with 1 and the requests that did not. Memory is capped.
"""

import contextlib
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from wrong_lines import line
from wrong_sets import data_set, model_file, page_files, recipe

from pontryagin.cli import main
from pontryagin.run import checkpoint
from pontryagin.run.errors import ExperimentError
from pontryagin.run.reports.training import write_report

MEMORY, SECONDS, LONGEST = 4 << 30, 60, 900
"""Bytes of data of this process, seconds and characters that a refusal may take."""
BEGINS = ("pontryagin.run.training._Training.all_seeds", "pontryagin.run.study.threads",
          "pontryagin.papers.images.experiment.tuned", "pontryagin.bench.panel.experiment._run",
          "pontryagin.bench.panel.experiment._price", "pontryagin.bench.panel.experiment._derive",
          "pontryagin.bench.scaling._measure", "pontryagin.run.auditing.run.auditing",
          "pontryagin.cli.files.fetch")
"""Where the work of a command begins."""
DRAW = write_report
SMALL = ["--model", "mlp", "--model-args.depth", "1", "--model-args.width", "4"]


class BegunError(BaseException):
    """The work would begin."""


def _begin(*_: object, **__: object) -> None:
    raise BegunError


def _nowhere(*_: object, **__: object) -> None:
    raise ExperimentError("mnist: nothing is fetched here")


def _late(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def ended(words: list[str]) -> tuple[str, str, str]:
    """How a command line ends (begun, a status, or an exception), and what it prints, to both ends."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as left:
            how = str(left.code or 0)
        except BegunError:
            how = "begun"
        except BaseException as error:  # noqa: BLE001 # which is what this program looks for
            last = traceback.extract_tb(error.__traceback__)[-1]
            how = f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
    return how, out.getvalue(), err.getvalue()


def complaint(how: str, out: str, err: str, wrong: bool) -> str:
    """What is not as it must be; empty where all is."""
    if how == "2":
        right = err.startswith("pontryagin: ") and err.count("\n") == 1 and len(err) <= LONGEST
        return "" if right and not out else f"not one line: {out[:200]!r} {err[:LONGEST]!r}"
    if how in ("0", "begun"):
        return "what is wrong was accepted" if wrong else ""
    return f"ended with {how}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No work begins, nothing is fetched, and no request takes long."""
    with contextlib.ExitStack() as stack:
        for place in BEGINS:
            stack.enter_context(mock.patch(place, _begin))
        stack.enter_context(mock.patch("pontryagin.run.data.images.fetch", _nowhere))
        stack.enter_context(mock.patch("pontryagin.run.settings.torch.set_num_threads", return_value=None))
        yield


def judged(words: list[str], wrong: bool) -> tuple[str, str]:
    """How a request ended, and the complaint, that it leaves something among them."""
    before = sorted(os.listdir())
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(SECONDS)
    how, out, err = ended(words)
    signal.alarm(0)
    found = complaint(how, out, err, wrong)
    left = [name for name in os.listdir() if name not in before]
    if how == "2" and left and not found:
        found = f"left {left}"
    for name in left:
        _remove(Path(name))
    return ("begun" if how == "begun" else how[:3]), found


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for inner in path.iterdir():
            _remove(inner)
        path.rmdir()
    else:
        path.unlink()


def lines(number: int, generator: random.Random) -> Iterator[tuple[str, str, str]]:
    """How each ended, the complaint, the request."""
    for _ in range(number):
        words, content, wrong = line(generator)
        if content is not None:
            Path("options.yaml").write_bytes(content)
        how, found = judged(words, wrong)
        yield how, found, f"{words} {content!r}"
        Path("options.yaml").unlink(missing_ok=True)


def sets(number: int, generator: random.Random) -> Iterator[tuple[str, str, str]]:
    """Data sets, which are trained on where they can be, and files of models by turns."""
    whole, content = Path("model.pt").read_bytes(), checkpoint.read(Path("model.pt"))
    for trial in range(number):
        if trial % 6 == 5:
            shutil.copytree("whole", "changed")
            page_files(Path("changed"), generator)
            with mock.patch("pontryagin.run.reports.training.write_report", DRAW):
                how, found = judged(["report", "changed"], False)
            shutil.rmtree("changed")
            yield how, found, f"{trial} report"
            continue
        if trial % 3 == 2:
            model_file(whole, content, Path("changed.pt"), generator)
            words = generator.choice([["predict", "changed.pt"], ["export", "changed.pt", "--out", "x"],
                                      ["audit", "mlp", "digits", "--weights", "changed.pt"],
                                      ["train", *SMALL, "--iterations", "1", "--out", "run", "--weights",
                                       "changed.pt"]])
            if words[0] == "train":
                yield *_trained(words), f"{trial} {words}"
                continue
            yield *judged(words, False), f"{trial} {words}"
            continue
        found, net = data_set(generator)
        more, metric, collate = recipe(generator)
        theirs: Any = SimpleNamespace(load=lambda found=found: found, net=net, metric=metric, collate=collate,
                                      __name__="theirs", __file__="theirs.py")
        words = ["train", "--model", "theirs:net", "--data", "theirs:load", "--batch-size", "4",
                 "--iterations", "2",
                 "--out", "run", "--method", generator.choice(["adam", "emsa"]), *more]
        with mock.patch.dict(sys.modules, {"theirs": theirs}):
            yield *_trained(words), f"{trial} {found!r:.300}"


def _trained(words: list[str]) -> tuple[str, str]:
    """In earnest; what has only begun may leave a folder, which is in nobody's way."""
    how, out, err = ended(words)
    found = complaint(how, out if how != "2" else "", err, False)
    if how == "1" and err.count("\n") == 1:
        found = ""
    if how == "2" and Path("run").exists() and "already holds" in ended([*words[:1], *SMALL, *words[5:]])[2]:
        found = found or "its folder is in the way of the next start"
    if Path("run").exists():
        _remove(Path("run"))
    return how[:3], found


def fuzz(line_count: int, set_count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """How many requests ended how, and those that ended as none may."""
    here, ends, wrong = Path.cwd(), Counter[str](), []
    with tempfile.TemporaryDirectory() as folder, mock.patch(
            "pontryagin.run.reports.training.write_report", lambda out, _: out / "report.html"):
        os.chdir(folder)
        try:
            assert ended(["train", *SMALL, "--iterations", "1", "--out", "whole"])[0] == "0"
            shutil.copy("whole/models/emsa-seed0.pt", "model.pt")
            with quiet():
                requests = list(lines(line_count, random.Random(seed)))
            only = mock.patch("pontryagin.run.auditing.run.auditing", _begin)
            with only, mock.patch("pontryagin.run.reports.page.left_out", return_value="no pictures"):
                requests += sets(set_count, random.Random(seed + 1))
        finally:
            os.chdir(here)
    for how, found, request in requests:
        ends[how] += 1
        if found:
            wrong.append(f"{request}: {found}")
    return ends, wrong


def program(words: Callable[[int], str] = sys.argv.__getitem__) -> None:
    """See above."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    ends, wrong = fuzz(int(words(1)), int(words(2)), int(words(3)))
    print(*wrong, dict(ends), f"{len(wrong)} of {ends.total()} requests ended as none may", sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    program()
