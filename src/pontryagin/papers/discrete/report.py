"""report.html of training over discrete weights: beside the printed table, rounding after training, pictures,
sizes."""

from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from pontryagin.papers.discrete.figures import draw_discrete
from pontryagin.run.figures.method_style import in_order, style_of
from pontryagin.run.files import write_bytes
from pontryagin.run.reports.page import details, frame, picture
from pontryagin.run.reports.text import NONE, label, number, table, tuning_table
from pontryagin.run.tables import read_summary

Result = dict[str, Any]
_NOTES = """<p>All methods begin with the same weights (each rounds them to the set), the same normalizations
and the same batches, and take turns, an iteration each. Seconds leave out evaluation and the checks that
every weight lies in its set. Li and Hao's rule keeps its own schedule (the renewal of its running mean falls
by {} % an epoch, theirs by 5 %; Adam's rate for the normalizations stays); the others' rates fall linearly to
0. What differs from the authors' code: unless --random-normalization was given, scales and shifts of the
normalizations begin at 1 and 0, not at random; weights of the ternary network begin with 35 %, not a third,
of zeros. The rule turns weights in bursts, so its test error jumps from epoch to epoch, theirs as ours:
compare curves, not points. After a burst the normalizations' running statistics are out of date: the column
"averaged anew" has the test error of the same network, its statistics averaged over 10000 training
samples.</p>"""


def write_report(directory: Path) -> Path:
    """directory/report.html and its figures, from summary.json and the tables. Raises ReportError."""
    summary = read_summary(directory / "summary.json")
    drawings = draw_discrete(directory, summary)
    kind = str(summary["experiment"])
    title = f"{kind.capitalize()} weights by the maximum principle"
    parts = [f"<h1>{escape(title)}</h1>"]
    if summary["interrupted"]:
        parts.append('<p class="banner" role="status"><b>Not finished.</b> The run was stopped before its '
                     'end; add --resume to '
                     "the command to go on.</p>")
    parts += [f"<pre><code>{escape(str(summary['command']))}</code></pre>", _lead(summary)]
    for methods in summary["results"].values():
        parts += ["<h2>Results</h2>", _results(methods, summary)] if methods else []
    decay = summary["settings"]["options"].get("li-hao", {}).get("decay", 0.95)
    parts += [_NOTES.format(f"{100 * (1 - decay):.3g}"),
              *(f"<h2>{escape(one.title)}</h2>{picture(one)}" for one in drawings)]
    if summary.get("rounded"):
        parts += ["<h2>Rounding after training</h2>", _rounded(summary["rounded"])]
    if any(summary["tuning"].values()):
        parts += ["<h2>Rates tried</h2>", tuning_table(summary["tuning"], summary["results"])]
    parts.append(details(summary))
    path = directory / "report.html"
    write_bytes(path, frame(title, "\n".join(parts)).encode())
    return path


def headline(summary: Result) -> list[str]:
    """A plain sentence a method."""
    found = []
    for methods in summary["results"].values():
        for method in in_order(list(methods)):
            result = methods[method]
            zeros = f", {_shares(result['nonzero'])} of the weights not 0" if "nonzero" in result else ", real weights"
            found.append(f"{style_of(method).label}: test error {_error(result)} after "
                         f"{_epochs(summary, result):.3g} epochs{zeros}, "
                         f"{1000 * (result['seconds_per_iteration'] or 0):.3g} ms an iteration.")
    return found


def _lead(summary: Result) -> str:
    task, told = summary["task"], "\n".join(f"<li>{escape(sentence)}</li>" for sentence in headline(summary))
    return ("<p>The comparison of Li and Hao, <cite>An Optimal Control Approach to Deep Learning and "
            f"Applications to Discrete-Weight Neural Networks</cite> (ICML 2018): {escape(task['data'])}, "
            f"{escape(task['model'])}, no biases, "
            f"normalization after every layer, batches of {summary['settings']['batch_size']}, loss "
            f"{escape(task['loss'])}.</p>\n"
            f"<ul>\n{told}\n</ul>")


def _results(methods: dict[str, Result], summary: Result) -> str:
    """Beside what was printed at the same epoch, where it was."""
    ours = {method: methods[method] for method in in_order(list(methods))}
    printed = summary.get("printed", {})
    least = min((result["seconds_per_iteration"]
                 for result in ours.values() if result["seconds_per_iteration"]), default=0)
    rows = []
    for method, result in ours.items():
        seconds, epoch = result["seconds_per_iteration"], _epochs(summary, result)
        theirs = (printed.get("test_error", {}).get(f"{epoch:g}") if method == "li-hao"
                  and summary["task"]["data"] == "mnist" else None)
        rows.append([label(method), number(result["learning_rate"]), f"{epoch:.3g}",
                     f"<b>{_error(result)}</b>",
                     _spread(result["recalibrated_error"]) if "recalibrated_error" in result else NONE,
                     NONE if theirs is None else f"{theirs:.2f} %",
                     _shares(result["nonzero"]) if "nonzero" in result else "real",
                     number(result["train_loss"]["median"]), NONE if not seconds else number(1000 * seconds),
                     NONE if not seconds or not least else f"{seconds / least:.2f}",
                     f"{result['packed_bytes']:,}" if "packed_bytes" in result else NONE])
    head = ["method", "rate", "epochs", "test error", "averaged anew", "printed", "not 0", "train loss",
            "ms per iteration",
            "relative", "bytes packed"]
    return table(head, rows)


def _rounded(rows: list[Result]) -> str:
    groups: dict[tuple[str, bool], list[Result]] = {}
    for row in rows:
        groups.setdefault((row["scale"], row["recalibrated"]), []).append(row)
    cells = []
    for (scale, again), found in groups.items():
        error, shares = median(row["test_error"] for row in found), _shares([row["nonzero"] for row in found])
        cells.append([escape(scale), "averaged anew" if again else "as trained", f"<b>{error:.2f} %</b>",
                      shares])
    return ("<p>The network that Adam trained with real weights, its weights rounded at the end: by sign "
            "(binary) or by Ternary Weight Networks' threshold, or to the nearest with a scale for each row; "
            "with the running statistics of the normalizations as they were, or averaged anew over training "
            "samples.</p>"
            + table(["scale", "running statistics", "test error", "not 0"], cells))


def _epochs(summary: Result, result: Result) -> float:
    return result["iterations"] * summary["settings"]["batch_size"] / summary["samples"]["train"]


def _error(result: Result) -> str:
    found = result["test_accuracy"]
    return _spread([100 * (1 - found[name]) for name in ("min", "median", "max")])


def _spread(errors: list[float]) -> str:
    """Median and range, in per cent."""
    middle, least, most = f"{median(errors):.2f} %", min(errors), max(errors)
    return middle if least == most else f"{middle} [{least:.2f}, {most:.2f}]"


def _shares(shares: list[float]) -> str:
    return f"{100 * median(shares):.3g} %"
