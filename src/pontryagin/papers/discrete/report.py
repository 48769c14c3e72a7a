"""report.html of training over discrete weights: beside the printed table, rounding after training, pictures,
sizes."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from markupsafe import Markup

from pontryagin.papers.discrete.figures import sketches
from pontryagin.run.figures.method_style import in_order, style_of
from pontryagin.run.reports.page import Banner, Block, Cells, Heading, pictures, write_page
from pontryagin.run.reports.words import NONE, best, given, label, number, tuned
from pontryagin.run.tables import read_summary

Result = dict[str, Any]
_WAYS = (("A network of yours over such a set, and packed into bits:", "python "
                                                                       "examples/discrete_network.py"),)
_NOTES = (
    "All methods begin with the same weights (each rounds them to the set), the same normalizations and the "
    "same batches, and take turns, an iteration each. Seconds leave out evaluation and the checks that every "
    "weight lies in its set. Li and Hao's rule keeps its own schedule (the renewal of its running mean falls "
    "by {:.3g} % an epoch, theirs by 5 %; Adam's rate for the normalizations stays); the others' rates fall "
    "linearly to 0. What differs from the authors' code: unless --random-normalization was given, scales and "
    "shifts of the normalizations begin at 1 and 0, not at random; weights of the ternary network begin with "
    "35 %, not a third, of zeros. The rule turns weights in bursts, so its test error jumps from epoch to "
    "epoch, theirs as ours: compare curves, not points. After a burst the normalizations' "
    "running statistics are out of date: the column \"averaged anew\" has the test error of the same "
    "network, its statistics averaged over 10000 training samples.")


def write_report(directory: Path) -> Path:
    """directory/report.html and its figures, from summary.json and the tables. Raises ReportError."""
    summary = read_summary(directory / "summary.json")
    blocks = _lead(summary)
    for methods in summary["results"].values():
        blocks += [Heading("Results"), _results(methods, summary)] if methods else []
    decay = summary["settings"]["options"].get("li-hao", {}).get("decay", 0.95)
    blocks += [_NOTES.format(100 * (1 - decay)),
               *pictures(directory, sketches(directory, summary), titles=True)]
    if summary.get("rounded"):
        blocks += [Heading("Rounding after training"), *_rounded(summary["rounded"])]
    blocks += tuned(summary["tuning"], summary["results"], summary.get("tuning_rule", ""))
    title = f"{str(summary['experiment']).capitalize()} weights by the maximum principle"
    return write_page(directory, title, summary, blocks, Banner(
        "Not finished.", "The run was stopped before its end; add --resume to the command to go on."),
        _first(summary), _WAYS)


def _first(summary: Result) -> str:
    """Test errors, the least first."""
    found = {method: result for methods in summary["results"].values() for method, result in methods.items()}
    order = sorted(found, key=lambda method: -found[method]["test_accuracy"]["median"])
    return "Test error: " + ", ".join(
        f"{style_of(method).label} {100 * (1 - found[method]['test_accuracy']['median']):.2f} %"
        + (" (real weights)" if method == "adam" else "") for method in order) + "." if order else ""


def headline(summary: Result) -> list[str]:
    """A plain sentence a method."""
    found = []
    for methods in summary["results"].values():
        for method in in_order(methods):
            result = methods[method]
            zeros = (f"{_shares(result['density'])} of the weights not 0" if "density" in result
                     else "real weights" if method == "adam" else "weights of the set")
            found.append(f"{style_of(method).label}: test error {_error(result)} after "
                         f"{_epochs(summary, result):.3g} epochs, {zeros}, "
                         f"{1000 * (result['seconds_per_iteration'] or 0):.3g} ms an iteration.")
    return found


def _lead(summary: Result) -> list[Block]:
    task = summary["task"]
    return [Markup(
        "The comparison of Li and Hao, <cite>An Optimal Control Approach to Deep Learning and Applications "
        "to Discrete-Weight Neural Networks</cite> (ICML 2018): {}, {}, no biases, normalization after every "
        "layer, batches of {}, loss {}.").format(task["data"], task["model"],
                                                 summary["settings"]["batch_size"], task["loss"]),
        headline(summary)]


def _results(methods: dict[str, Result], summary: Result) -> Cells:
    """Beside what was printed at the same epoch, where it was."""
    printed = summary.get("printed", {}).get("test_error", {}) if summary["task"]["data"] == "mnist" else {}
    least = min((result["seconds_per_iteration"] for result in methods.values()
                 if result["seconds_per_iteration"]), default=0)
    rows = []
    for method in in_order(methods):
        result = methods[method]
        seconds, epoch = result["seconds_per_iteration"], _epochs(summary, result)
        theirs = printed.get(f"{epoch:g}") if method == "li-hao" else None
        rows.append([label(method), given(result["learning_rate"]), f"{epoch:.3g}", _error(result),
                     _spread(result["recalibrated_error"]) if "recalibrated_error" in result else NONE,
                     NONE if theirs is None else f"{theirs:.2f} %",
                     _shares(result["density"]) if "density" in result else "real" if method == "adam"
                     else NONE, number(result["train_loss"]["median"]),
                     number(1000 * seconds) if seconds else NONE,
                     f"{seconds / least:.2f}" if seconds and least else NONE,
                     f"{result['packed_bytes']:,}" if "packed_bytes" in result else NONE])
    return Cells(["method", "rate", "epochs", "test error", "averaged anew", "printed", "not 0", "train loss",
                  "ms per iteration", "relative", "bytes packed"], rows, best=best({
                      3: [-methods[method]["test_accuracy"]["median"] for method in in_order(methods)],
                      7: [methods[method]["train_loss"]["median"] for method in in_order(methods)],
                      8: [methods[method]["seconds_per_iteration"] for method in in_order(methods)]}))


def _rounded(rows: Sequence[Result]) -> list[Block]:
    groups: dict[tuple[str, bool], list[Result]] = {}
    for row in rows:
        groups.setdefault((row["scale"], row["recalibrated"]), []).append(row)
    return [
        "The network that Adam trained with real weights, its weights rounded at the end: by sign (binary) "
        "or by Ternary Weight Networks' threshold, or to the nearest with a scale for each row; with the "
        "running statistics of the normalizations as they were, or averaged anew over training samples.",
        Cells(["scale", "running statistics", "test error", "not 0"], [
            [scale, "averaged anew" if again else "as trained",
             f"{median(row['test_error'] for row in found):.2f} %",
             _shares([row["density"] for row in found])]
            for (scale, again), found in groups.items()], names=2, best=best({
                2: [median(row["test_error"] for row in found) for found in groups.values()]}))]


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
