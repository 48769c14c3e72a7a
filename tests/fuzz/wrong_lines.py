"""Command lines and files of options, most of them wrong, from a seed."""

import random
import string
from dataclasses import MISSING
from typing import Any

import yaml

from pontryagin.cli.commands import COMMANDS, command
from pontryagin.cli.kinds import is_flag, is_mapping
from pontryagin.cli.options import Command

RUNNING = [path for path, (module, _) in COMMANDS.items() if module]
GOOD: dict[str, list[str]] = {
    "model": ["mlp", "residual-cnn"], "data": ["digits"], "method": ["adam", "emsa"],
    "methods": ["emsa", "all"],
    "loss": ["cross-entropy"], "schedule": ["cosine"], "dtype": ["float64"], "device": ["cpu"],
    "split": ["train"],
    "part": ["test"], "sets": ["int4,2:4"], "task": ["mlp"], "tasks": ["all"], "name": ["mnist"],
    "path": ["model.pt"],
    "networks": ["all"], "tuning": ["all"], "maximizers": ["all"], "share": ["1/2"], "processes": ["2,4"],
    "seeds": ["2", "1,5,9"], "target_accuracy": ["0.9"], "redo": ["emsa"], "lr": ["0.1", "find"],
    "weights": ["model.pt"], "validation": ["0.1", "own"], "metric": ["os:getcwd"], "collate": ["os:getcwd"],
    "class_weights": ["balanced", "1,2,0.5"], "warm_up": ["0.1", "3"], "clip_norm": ["1"],
    "num_workers": ["2"], "patience": ["3"]}
"""Words that an option may have; of others by their kind."""
BAD = ["abc", "1.5.2", "9" * 25, "", "[1", "{a: ", "emsa adam", ",", "-", "\udcff", "a\0b", "~nosuchuser/x",
       "x" * 5000,
       "1e999", "--", "None", "é", "\x1b[31m", "%s%n", "../" * 50, "nan", "-7", "@", "!!python/none", "*a",
       "&a b"]
"""Words that are no number, and hardly anything else."""
JUNK: list[Any] = [None, -1, 10**30, 2.5, float("nan"), "x", "", [], {}, [1, [2]], {"a": {"b": 1}}, True,
                   "9" * 400, {3: 4}, ["emsa", 3], "2024-01-01", "\ud800", b"\xff"]


def line(generator: random.Random) -> tuple[list[str], bytes | None, bool]:
    """Words; a file of options that they name as options.yaml, or None; whether they are surely wrong."""
    path = generator.choice(RUNNING)
    asked, words, wrong = command(path), [], False
    names = generator.sample(list(asked.options), min(len(asked.options), generator.randrange(5)))
    for name in names:
        words += _option(asked, name, generator)
    given = [name for name, (_, hint) in asked.options.items() if asked.default(name) is MISSING]
    positions = [generator.choice(GOOD.get(name, ["model.pt"])) for name in given if name not in names]
    content = None
    for _ in range(generator.choice((0, 1, 1, 1, 2))):
        kind = generator.randrange(7)
        if kind == 0:
            words += [f"--{_misspelt(generator.choice(list(asked.options)), generator)}", "3"]
            wrong = True
        elif kind == 1 and (numbers := _of_kind(asked, (int, float))):
            words += [_flag(generator.choice(numbers)), generator.choice(BAD)]
            wrong = True
        elif kind == 2:
            words.append(f"{_flag(generator.choice(list(asked.options)))}={generator.choice(BAD)}")
        elif kind == 3:
            words.append(generator.choice([*BAD, "stray", "-x", "--", "--=", "--.", "-1"]))
        elif kind == 4:
            words += ["--config", "options.yaml"]
            content, wrong = _file(asked, generator), True
        elif kind == 5:
            words += ["--config", generator.choice([".", "nowhere.yaml", "model.pt", "/dev/null", "x" * 300])]
            wrong = True
        else:
            words.append(f"{_flag(generator.choice(list(asked.options)))}.{generator.choice(BAD)}")
            words.append(generator.choice(BAD))
            wrong = True
    if generator.random() < 0.05:
        return [generator.choice([path[:-1] or "x", "", "trian", *BAD]), *words], content, True
    return [*path.split(), *positions, *words], content, wrong


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _option(asked: Command, name: str, generator: random.Random) -> list[str]:
    """A good one, as far as its kind tells."""
    hint, flag = asked.options[name][1], _flag(name)
    if is_flag(hint):
        return [flag]
    if is_mapping(hint):
        return [f"{flag}.{generator.choice(['emsa', 'width', 'a'])}",
                generator.choice(["1", "{damping: 0.3}", "x"])]
    return [flag, generator.choice(GOOD.get(name, ["3", "7", "out"]))]


def _of_kind(asked: Command, kinds: tuple[type, ...]) -> list[str]:
    return [name for name, (_, hint) in asked.options.items() if hint in kinds]


def _misspelt(name: str, generator: random.Random) -> str:
    """Without a letter, with another, with two changed places: no option of any command."""
    at = generator.randrange(len(name))
    letter = generator.choice(string.ascii_lowercase)
    return generator.choice([name[:at] + name[at + 1:] + "qz", f"{name[:at]}{letter}q{name[at:]}",
                             f"{name}zq"])


def _file(asked: Command, generator: random.Random) -> bytes:
    """A wrong one: of random bytes, cut off, with a misspelt key, or with what is no value of any option."""
    name = generator.choice(list(asked.options))
    kind = generator.randrange(5)
    if kind == 0:
        return b"\xff" + generator.randbytes(generator.randrange(200))
    if kind == 1:
        return f"{name}: [1, {{a: ".encode()
    if kind == 2:
        return f"{_misspelt(name, generator)}: 3\n".encode()
    if kind == 3:
        return f"{name}: {{{name}: {{3: [{generator.choice(['*a', '!!x 1', '&a 1', '1'])}]}}}}\n".encode()
    numbers = _of_kind(asked, (int,)) or [name]
    junk = generator.choice([one for one in JUNK if one not in (True,) and not isinstance(one, (float, bytes))
                             and one != "\ud800"])
    return yaml.safe_dump({generator.choice(numbers): [junk, {3: 4}]}).encode()
