"""report.html of a training: what happened, in words, a table and pictures, and how to go on."""

from html import escape
from pathlib import Path
from typing import Any

from pontryagin.run.callbacks import ReportContext
from pontryagin.run.figures.method_style import in_order
from pontryagin.run.files import write_bytes
from pontryagin.run.history import percent, sentences
from pontryagin.run.reports.page import details, frame, pictures
from pontryagin.run.reports.text import NONE, label, number, spread, table, targets, tuning_table
from pontryagin.run.tables import Drawing, read_summary

Result = dict[str, Any]
_STATES = {
    "running": "This page was written while the run was going on; if it is not any more, it can be resumed "
               "(below).",
    "interrupted": "The run was stopped before its end and can be resumed (below); the numbers are those "
                   "reached by then."}


def write_report(directory: Path, context: ReportContext) -> Path:
    """directory/report.html and its figures, from summary.json and metrics.csv. Raises ReportError."""
    summary = read_summary(directory / "summary.json")
    path = directory / "report.html"
    write_bytes(path, _page(directory, summary, context).encode())
    return path


def _page(directory: Path, summary: Result, context: ReportContext) -> str:
    task = next(iter(summary["results"]), "Training")
    title = context.title or f"Training: {task}"
    parts = [f"<h1>{escape(title)}</h1>"]
    if summary["state"] in _STATES:
        parts.append(f'<p class="banner" role="status"><b>Not finished.</b> {_STATES[summary["state"]]}</p>')
    parts += [f"<pre><code>{escape(summary['command'])}</code></pre>", _lead(summary)]
    parts.append(pictures(lambda: _draw(directory, summary)))
    for methods in summary["results"].values():
        if methods:
            parts += ["<h2>Results</h2>", _results(methods), _COLUMNS]
    parts.append(context.section(directory, summary))
    if any(summary["tuning"].values()):
        parts += ["<h2>Learning rates tried</h2>",
                  f"<p>The score of every rate, lower is better: {escape(summary['tuning_rule'])}. "
                  "Bold: the rate that was used.</p>", tuning_table(summary["tuning"], summary["results"])]
    parts += ["<h2>How to go on</h2>", _ways(directory, summary, context), details(summary | {
        "settings": {"task": summary["task"], **summary["settings"]}})]
    return frame(title, "\n".join(part for part in parts if part))


def _draw(directory: Path, summary: Result) -> list[Drawing]:
    from pontryagin.run.figures.training import draw_training

    return draw_training(directory, summary["samples"]["test"])


_COLUMNS = """<p><small>Median over the seeds, [least, greatest]. “to 0.1”, “to 97 %”: iterations (it) and
seconds (s) of training until an evaluation gave a train loss that low, a test accuracy that high; “—” where
the median seed did not get there.</small></p>"""


def _lead(summary: Result) -> str:
    settings, samples = summary["settings"], summary["samples"]
    length = f"{settings['iterations']:,} iterations" if settings["iterations"] else f"{settings['epochs']} epochs"
    seeds = len(settings["seeds"])
    told = "\n".join(f"<li>{escape(sentence)}</li>" for sentence in sentences(summary["results"]))
    several = f", {seeds} seeds" if seeds > 1 else ""
    many = ("" if len(settings["methods"]) == 1
            else " All methods began with the same weights, saw the same batches and took "
            "turns, an iteration each.")
    return (f"<p>{samples['train']:,} samples for training and {samples['test']:,} for testing, loss: "
            f"{escape(summary['objective'])}; batches of {settings['batch_size']}, {length}, learning rates "
            "by the schedule "
            f"“{escape(settings['schedule'])}”{several}.{many}</p>\n<ul>\n{told}\n</ul>")


def _results(methods: dict[str, Result]) -> str:
    """How it ended; and, in a table of its own, for one would be wider than a page, when targets were
    reached."""
    losses = targets(methods)[-3:]
    accuracies = _accuracies(methods)
    scored = any("test_accuracy" in result for result in methods.values())
    head = ["method", "learning rate", "iterations", "samples per second", "train loss", "test loss",
            *(["test accuracy", "best test accuracy"] if scored else []),
            *(f'<span class="nowrap">to {number(float(target))}</span>' for target in losses),
            *(f'<span class="nowrap">to {100 * float(target):g} %</span>' for target in accuracies)]
    rows = []
    for method in in_order(list(methods)):
        result = methods[method]
        cells = [label(method), number(result["learning_rate"]), f"{result['iterations']:,}",
                 number(result["samples_per_second"]), spread(result["train_loss"]),
                 spread(result["test_loss"])]
        if scored:
            cells += [_spread(result.get(name)) for name in ("test_accuracy", "best_test_accuracy")]
        cells += [_reach(*(result[cost].get(target, {}).get("median")
                           for cost in ("iterations_to", "seconds_to")))
                  for target in losses]
        cells += [_reach(*(result.get("accuracy_to", {}).get(target, {}).get(key)
                           for key in ("iterations", "seconds")))
                  for target in accuracies]
        rows.append(cells)
    ends = len(head) - len(losses) - len(accuracies)
    first = table(head[:ends], [row[:ends] for row in rows])
    return first + table([head[0], *head[ends:]],
                         [[row[0], *row[ends:]] for row in rows]) if head[ends:] else first


def _accuracies(methods: dict[str, Result]) -> list[str]:
    """The three highest that the median seed of some method reached."""
    reached = {target for result in methods.values()
               for target, found in result.get("accuracy_to", {}).items() if found["iterations"] is not None}
    return sorted(reached, key=float)[-3:]


def _reach(iterations: float | None, seconds: float | None) -> str:
    return NONE if iterations is None else f"<b>{number(iterations)}</b> it<br>{number(seconds)} s"


def _spread(accuracy: Result | None) -> str:
    if accuracy is None:
        return NONE
    if accuracy["min"] == accuracy["max"]:
        return f"<b>{percent(accuracy['median'])}</b>"
    return (f"<b>{percent(accuracy['median'])}</b><br><small>[{percent(accuracy['min'])}, "
            f"{percent(accuracy['max'])}]</small>")


def _ways(directory: Path, summary: Result, context: ReportContext) -> str:
    folder = escape(str(directory))
    own = "".join(f" --{part} {escape(str(summary['task'].get(part)))}" for part in ("model", "data", "loss")
                  if ":" in str(summary["task"].get(part, "")))
    kind = context.command or ("compare" if len(summary["settings"]["methods"]) > 1 else "train")
    lines = []
    if summary["state"] != "complete":
        lines.append(("Resume it", f"pontryagin {kind} --resume --out {folder}{own}"))
    lines.append(("Evaluate what was trained, and write its predictions",
                  f"pontryagin predict {folder} --predictions predictions.csv{own}"))
    return "".join(f"<p>{title}:</p><pre><code>{line}</code></pre>" for title, line in lines)
