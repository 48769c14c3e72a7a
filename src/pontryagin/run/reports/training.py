"""report.html of a training: what happened, in words, a table and pictures, and how to go on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pontryagin.optim import FoundRate, Pilot
from pontryagin.run.callbacks import ReportContext
from pontryagin.run.figures.method_style import in_order, style_of
from pontryagin.run.history import headline, percent, sentences
from pontryagin.run.parts import DESCRIPTION, OWN_CODE
from pontryagin.run.reports.page import Banner, Block, Cells, Heading, pictures, write_page
from pontryagin.run.reports.words import (
    NONE,
    best,
    count,
    given,
    join,
    label,
    number,
    small,
    spread,
    targets,
    tuned,
    unbroken,
)
from pontryagin.run.tables import Sketch, read_summary

Result = dict[str, Any]
_STATES = {
    "running": "This page was written while the run was going on; if it is not any more, it can be resumed "
               "(below).",
    "interrupted": "The run was stopped before its end and can be resumed (below); the numbers are those "
                   "reached by then."}
_RATES = {"linear": "falling linearly to 0", "cosine": "falling to 0 along a cosine",
          "constant": "constant"}
_PARTS = {"train": "training", "test": "testing", "validation": "validation"}
_COLUMNS = small("Median over the seeds, [least, greatest]. “to 0.1”, “to 97 %”: iterations and seconds of "
                 "training until an evaluation gave a train loss that low, a test accuracy that high; “—” "
                 "where the median seed did not get there. Shown are the strictest targets that all methods "
                 "reached, and those beyond that some did. Marked: the best of a column, of a target by "
                 "seconds.")


def write_report(directory: Path, context: ReportContext) -> Path:
    """directory/report.html and its figures, from summary.json and metrics.csv. Raises ReportError."""
    summary = read_summary(directory / "summary.json")
    state = summary["state"]
    blocks = [*_lead(summary), *pictures(directory, {"training": lambda: _losses(directory, summary)})]
    for methods in summary["results"].values():
        if methods:
            blocks += [Heading("Results"), *_results(methods), _COLUMNS]
    blocks += [*context.section(directory, summary),
               *tuned(summary["tuning"], summary["results"], summary["tuning_rule"]),
               *_pilots(directory, summary)]
    return write_page(directory, context.title or f"Training: {next(iter(summary['results']), 'Training')}",
                      summary | {"settings": {"task": summary["task"], **summary["settings"]}}, blocks,
                      Banner("Not finished.", _STATES[state]) if state in _STATES else None,
                      headline(next(iter(summary["results"].values()), {}), summary.get("guess"),
                               summary.get("untuned", ())),
                      _ways(directory, summary, context))


def _losses(directory: Path, summary: Result) -> Sketch | None:
    from pontryagin.run.figures import training

    return training.losses(directory / "metrics.csv", summary["samples"]["test"])


def _pilots(directory: Path, summary: Result) -> list[Block]:
    """What chose the learning rates, and what it cost; nothing where no pilot did."""
    rates = summary["settings"].get("rates", {})
    found = {method: FoundRate(rates[method], tuple(Pilot(**pilot) for pilot in pilots), batches=0)
             for methods in summary.get("pilots", {}).values()
             for method, pilots in methods.items() if method in rates}
    if not found:
        return []

    def sketch() -> Sketch:
        from pontryagin.run.figures.pilots import pilots

        return pilots(found)

    return [Heading("Learning rates found"),
            [f"{style_of(method).label}: {one.words}." for method, one in found.items()],
            "These seconds and passes are not counted elsewhere on this page.",
            *pictures(directory, {"pilots": sketch})]


def _lead(summary: Result) -> list[Block]:
    settings, samples = summary["settings"], summary["samples"]
    length = (f"{settings['iterations']:,} iterations" if settings["iterations"]
              else f"{settings['epochs']} epochs")
    seeds = len(settings["seeds"])
    several = f", {seeds} seeds" if seeds > 1 else ""
    together = (" All methods began with the same weights, saw the same batches and took turns, an iteration "
                "each." if len(settings["methods"]) != 1 else "")
    if together and summary.get("untuned"):
        together += (" Rates that were not tuned (--tune does) are the first of their method's grid, so "
                     "this is no contest.")
    parts = join([f"{samples[name]:,} for {word}" for name, word in _PARTS.items() if name in samples])
    return [f"Samples: {parts}; loss: "
            f"{summary['objective']}; batches of {settings['batch_size']}, {length}, learning rates "
            f"{_RATES[settings['schedule']]}{several}.{together}", sentences(summary["results"])]


def _results(methods: dict[str, Result]) -> list[Block]:
    """How it ended; and, in a table of its own, for one would be wider than a page, when targets were
    reached."""
    order = in_order(methods)
    results = [methods[method] for method in order]
    scored = [name for name in ("test_accuracy", "best_test_accuracy")
              if any(name in result for result in results)]
    more = [name for name in ("validation_loss", "test_metric") if any(name in result for result in results)]
    ends = [[label(method), given(result["learning_rate"]), f"{result['iterations']:,}",
             number(result["samples_per_second"]), spread(result["train_loss"]), spread(result["test_loss"]),
             *(spread(result[name], percent) if name in result else NONE for name in scored),
             *(spread(result[name]) if name in result else NONE for name in more)]
            for method, result in zip(order, results, strict=True)]
    head = ["method", "learning rate", "iterations", "samples per second", "train loss", "test loss",
            *(name.replace("_", " ") for name in (*scored, *more))]
    values = {column: [result.get(name, {}).get("median") for result in results]
              for column, name in enumerate(("train_loss", "test_loss", *scored), start=4)}
    values[3] = [result["samples_per_second"] for result in results]
    return [Cells(head, ends, best=best(values, most=(3, 6, 7))), *_goals(order, results)]


def _goals(order: Sequence[str], results: Sequence[Result]) -> list[Block]:
    """When targets were reached; nothing where none was."""
    goals = [(f"to {given(float(target))}", [
        tuple(result[cost].get(target, {}).get("median") for cost in ("iterations_to", "seconds_to"))
        for result in results]) for target in targets(dict(zip(order, results, strict=True)))]
    shares = sorted({share for result in results for share in result.get("accuracy_to", {})}, key=float)
    scores = [(f"to {100 * float(share):g} %", [
        tuple(result.get("accuracy_to", {}).get(share, {}).get(cost) for cost in ("iterations", "seconds"))
        for result in results]) for share in shares]
    shown = [*_telling(goals), *_telling(scores)]
    rows = [[label(method), *(_reach(*found[row]) for _, found in shown)] for row, method in enumerate(order)]
    seconds = {column: [each[1] for each in found] for column, (_, found) in enumerate(shown, start=1)}
    return [Cells(["method", *(unbroken(title) for title, _ in shown)], rows, best=best(seconds))
            ] if shown else []


Goal = tuple[str, list[tuple[float | None, ...]]]
"""A target in words, and for every method iterations and seconds to it, None where it was not reached."""


def _telling(goals: Sequence[Goal]) -> list[Goal]:
    """Of targets from the first to the strictest: the last that all methods reached, and the last two that
    some did."""
    some, every = ([goal for goal in goals if rule(each[0] is not None for each in goal[1])]
                   for rule in (any, all))
    return [goal for goal in goals if goal in (*every[-1:], *some[-2:])]


def _reach(iterations: float | None, seconds: float | None) -> str:
    return NONE if iterations is None else Markup("{} iterations <br>{} s").format(count(iterations),
                                                                                  number(seconds))


def _ways(directory: Path, summary: Result, context: ReportContext) -> list[tuple[str, str]]:
    """What to do next, with the commands."""
    task, methods, seeds = summary["task"], summary["settings"]["methods"], summary["settings"]["seeds"]
    own = "".join(f" --{part} {task[part]}"
                  for part in OWN_CODE if ":" in str(task.get(part)))
    kind = context.command or ("compare" if len(methods) > 1 else "train")
    ways = [] if summary["state"] == "complete" else [
        ("Resume it:", f"pontryagin {kind} --resume --out {directory}{own}")]
    if set(task) != set(DESCRIPTION):
        return ways
    plain = "".join(f" --{part} {task[part]}" for part in ("model", "data", "loss") if task.get(part))
    arguments = any(task.get(name) for name in DESCRIPTION if name not in ("model", "data", "loss"))
    if kind == "train" and methods == ["emsa"] and not arguments:
        ways.append(("See it beside Adam with a tuned rate:",
                     f"pontryagin compare{plain} --methods emsa,adam --tune 100"))
    if kind == "train" and summary["state"] == "complete" and not arguments and not task.get("loss"):
        ways.append(("See which layer could still gain, and what fewer bits would cost:",
                     f"pontryagin audit {task['model']} {task['data']} --weights "
                     f"{directory / 'models' / f'{methods[0]}-seed{seeds[0]}.pt'}"))
    if kind == "compare" and summary.get("untuned") and not arguments:
        ways.append(("Make it a contest, every rate tuned:",
                     f"pontryagin compare{plain} --methods {','.join(methods)} --tune 100"))
    chosen = (f" --method {methods[0]}" if len(methods) > 1 else "") + (
        f" --seed {seeds[0]}" if len(seeds) > 1 else "")
    return [*ways, ("Evaluate what was trained, and write its predictions:",
                    f"pontryagin predict {directory}{chosen} --predictions predictions.csv{own}")]
