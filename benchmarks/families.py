"""EMSA as it comes on families of models that are in use, beside AdamW at 1e-3 and at 3e-3: does it work, and
on which share?

    OMP_NUM_THREADS=1 python -m benchmarks.families [--families gpt2,vit,dcgan] [--steps 30] [--seeds 1]
    [--csv FILE]

Small models of transformers, made from configurations alone, and of plain torch (benchmarks/zoo), each with a
synthetic task. All methods start from equal weights, at constant rates, on equal batches. Per family: how
many parameters are trained; the share of them that EMSA maximizes, in closed form or otherwise than by AdamW;
the mean training loss of the last five steps, median over seeds; ms of processor time a step, median over
seeds; and the classes of the modules that hold what is left to AdamW. The file has the losses on a held-out
batch too, EMSA's with its averages.

A run that raises, whose loss is not finite, or that leaves a parameter with a gradient where it was, is
written in the place of its loss, and the exit status is then 1.
"""

import csv
import sys
import warnings
from argparse import ArgumentParser
from collections import Counter
from importlib.util import find_spec
from statistics import median
from textwrap import shorten

import torch

from benchmarks.measure import METHODS, Outcome, attempt, known, middle
from benchmarks.zoo import FAMILIES

_SHARE = 3e-4
"""Classes that hold less than this are put together."""


def _row(name: str, outcomes: dict[str, list[Outcome]]) -> dict[str, object]:
    """A line of the file. outcomes: by method, a seed each."""
    first = outcomes["EMSA"][0]
    sizes = first.parameters or next((one.parameters for runs in outcomes.values()
                                      for one in runs if one.parameters), 0)
    share = "" if first.failure else f"{1 - first.left.total() / first.parameters:.4f}"
    row: dict[str, object] = {"family": name, "parameters": sizes, "maximized": share}
    for method, runs in outcomes.items():
        failure = next((one.failure for one in runs if one.failure), "")
        row |= {method: failure or middle(one.loss for one in runs),
                f"{method}, held out": middle(one.held_out for one in runs),
                f"{method}, ms": middle(one.milliseconds for one in runs)}
    return row | {"left to AdamW": "; ".join(f"{kind} {size}" for kind, size in first.left.most_common())}


def _line(row: dict[str, object], outcome: Outcome) -> str:
    """A line of the table."""
    share = f"{float(str(row['maximized'])):.1%}" if row["maximized"] else "-"
    kinds = ", ".join(f"{kind} {size / outcome.parameters:.1%}" for kind, size in outcome.left.most_common(3))
    cells = [row["family"], row["parameters"], share, *(shorten(str(row[method]), 150) for method in METHODS),
             ", ".join(f"{float(str(row[f'{method}, ms'])):.2g}" for method in METHODS).replace("nan", "-"),
             kinds]
    return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |"


def _summary(outcomes: dict[str, dict[str, list[Outcome]]]) -> str:
    """How often EMSA is ahead of both others, and what it left to AdamW: by class, the mean share over all
    families."""
    complete = {name: runs for name,
                runs in outcomes.items() if not any(one.failure for many in runs.values() for one in many)}
    ahead = [name for name, runs in complete.items()
             if min(METHODS, key=lambda method: median(one.loss for one in runs[method])) == "EMSA"]
    behind = ", ".join(name for name in complete if name not in ahead) or "none"
    shares: Counter[str] = Counter()
    for runs in complete.values():
        for kind, size in runs["EMSA"][0].left.items():
            shares[kind] += size / runs["EMSA"][0].parameters / len(complete)  # type: ignore[assignment]
    lines = [f"EMSA is ahead of both others on {len(ahead)} of {len(complete)}; not on: {behind}.",
             f"It maximizes {1 - shares.total():.1%} of the parameters, mean over these families, and leaves "
             "to AdamW:", "",
             "| class | mean share |", "|---|---|",
             *(f"| {kind} | {share:.2%} |" for kind, share in shares.most_common() if share >= _SHARE),
             f"| others | {sum(share for share in shares.values() if share < _SHARE):.2%} |"]
    return "\n".join(lines)


def main() -> int:
    """The exit status."""
    options = ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--families", help="names, with commas between them")
    options.add_argument("--steps", type=int, default=30)
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--csv", help="file to be written")
    given = options.parse_args()
    names = known(options, "family", given.families.split(",") if given.families else [], FAMILIES)
    if find_spec("transformers") is None:
        options.error("most families are of transformers: pip install '.[integration]'")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    import transformers

    transformers.logging.set_verbosity_error()
    print(f"| | parameters | maximized | {' | '.join(METHODS)} | ms | left to AdamW |\n" + "|---"
          * (len(METHODS) + 5) + "|")
    rows, outcomes = [], {}
    for name in names:
        outcomes[name] = {method: [attempt(FAMILIES[name], method, seed, given.steps)
                                   for seed in range(given.seeds)]
                          for method in METHODS}
        rows.append(_row(name, outcomes[name]))
        print(_line(rows[-1], outcomes[name]["EMSA"][0]), flush=True)
    print("\n" + _summary(outcomes))
    if given.csv:
        with open(given.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return int(any(one.failure for runs in outcomes.values() for many in runs.values() for one in many))


if __name__ == "__main__":
    sys.exit(main())
