"""report.html of a training: what happened, in words, a table and pictures, and how to go on."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from pontryagin.optim import FoundRate, Pilot
from pontryagin.run.callbacks import ReportContext
from pontryagin.run.figures.method_style import in_order
from pontryagin.run.history import percent, sentences
from pontryagin.run.parts import DESCRIPTION
from pontryagin.run.reports.page import Banner, Block, Cells, Command, Heading, pictures, write_page
from pontryagin.run.reports.words import NONE, label, number, small, spread, targets, tuned, unbroken
from pontryagin.run.tables import Sketch, read_summary

Result = dict[str, Any]
_STATES = {
    "running": "This page was written while the run was going on; if it is not any more, it can be resumed "
               "(below).",
    "interrupted": "The run was stopped before its end and can be resumed (below); the numbers are those "
                   "reached by then."}
_COLUMNS = small("Median over the seeds, [least, greatest]. “to 0.1”, “to 97 %”: iterations (it) and seconds "
                 "(s) of training until an evaluation gave a train loss that low, a test accuracy that high; "
                 "“—” where the median seed did not get there.")


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
               *_pilots(directory, summary),
               Heading("How to go on"), *_ways(directory, summary, context)]
    return write_page(directory, context.title or f"Training: {next(iter(summary['results']), 'Training')}",
                      summary | {"settings": {"task": summary["task"], **summary["settings"]}}, blocks,
                      Banner("Not finished.", _STATES[state]) if state in _STATES else None)


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

    return [Heading("Learning rates found"), [f"{method}: {one.words}." for method, one in found.items()],
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
    if together and not summary["tuning"] and not summary.get("pilots"):
        together += (" Learning rates were not tuned (--tune does): each is the one given, or the first of "
                     "its method's grid, so this is no contest.")
    return [f"{samples['train']:,} samples for training and {samples['test']:,} for testing, loss: "
            f"{summary['objective']}; batches of {settings['batch_size']}, {length}, learning rates by the "
            f"schedule “{settings['schedule']}”{several}.{together}", sentences(summary["results"])]


def _results(methods: dict[str, Result]) -> list[Block]:
    """How it ended; and, in a table of its own, for one would be wider than a page, when targets were
    reached."""
    ends, reached = [], []
    losses, accuracies = targets(methods)[-3:], _accuracies(methods)
    scored = any("test_accuracy" in result for result in methods.values())
    for method in in_order(methods):
        result = methods[method]
        ends.append([label(method), number(result["learning_rate"]), f"{result['iterations']:,}",
                     number(result["samples_per_second"]), spread(result["train_loss"]),
                     spread(result["test_loss"]),
                     *(spread(result[name], percent) if name in result else NONE
                       for name in ("test_accuracy", "best_test_accuracy") if scored)])
        reached.append([label(method),
                        *(_reach(*(result[cost].get(target, {}).get("median")
                                   for cost in ("iterations_to", "seconds_to"))) for target in losses),
                        *(_reach(*(result.get("accuracy_to", {}).get(target, {}).get(key)
                                   for key in ("iterations", "seconds"))) for target in accuracies)])
    head = ["method", "learning rate", "iterations", "samples per second", "train loss", "test loss",
            *(["test accuracy", "best test accuracy"] if scored else [])]
    goals = [*(unbroken(f"to {number(float(target))}") for target in losses),
             *(unbroken(f"to {100 * float(target):g} %") for target in accuracies)]
    return [Cells(head, ends), *([Cells(["method", *goals], reached)] if goals else [])]


def _accuracies(methods: dict[str, Result]) -> list[str]:
    """The three highest that the median seed of some method reached."""
    reached = {target for result in methods.values()
               for target, found in result.get("accuracy_to", {}).items() if found["iterations"] is not None}
    return sorted(reached, key=float)[-3:]


def _reach(iterations: float | None, seconds: float | None) -> str:
    return NONE if iterations is None else Markup("<b>{}</b> it<br>{} s").format(number(iterations),
                                                                                 number(seconds))


def _ways(directory: Path, summary: Result, context: ReportContext) -> list[Block]:
    task = summary["task"]
    own = "".join(f" --{part} {task[part]}"
                  for part in ("model", "data", "loss") if ":" in str(task.get(part)))
    kind = context.command or ("compare" if len(summary["settings"]["methods"]) > 1 else "train")
    resume: list[Block] = ["Resume it:", Command(f"pontryagin {kind} --resume --out {directory}{own}")]
    methods, seeds = summary["settings"]["methods"], summary["settings"]["seeds"]
    chosen = (f" --method {methods[0]}" if len(methods) > 1 else "") + (
        f" --seed {seeds[0]}" if len(seeds) > 1 else "")
    evaluate: list[Block] = ["Evaluate what was trained, and write its predictions:", Command(
        f"pontryagin predict {directory}{chosen} --predictions predictions.csv{own}")]
    return [*(resume if summary["state"] != "complete" else []),
            *(evaluate if set(task) == set(DESCRIPTION) else [])]
