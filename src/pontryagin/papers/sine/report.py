"""report.html of `reproduce sine`: which method reached what, beside the paper, in words, tables and
pictures."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pontryagin.papers.sine.tables import read_folder
from pontryagin.papers.sine.task import figure_title
from pontryagin.run.figures.method_style import in_order
from pontryagin.run.reports.page import Banner, Block, Cells, Heading, write_page
from pontryagin.run.reports.words import (
    NONE,
    best,
    bold,
    count,
    given,
    join,
    label,
    named,
    number,
    small,
    spread,
    stack,
    targets,
    tuned,
    unbroken,
)
from pontryagin.run.tables import Drawing, read_summary

Result = dict[str, Any]
_TASK = Markup("A residual network is trained to compute sin x, as in Figure 1 of Li, Chen, Tai and E, "
               "<cite>Maximum Principle Based Algorithms for Deep Learning</cite> (JMLR 18, 2018); the loss "
               "is the mean squared error. Trained")
_COLUMNS = small("Losses: median over the seeds, [least, greatest]. “to 0.1” and so on: median iterations "
                 "(it), evaluations of all stages (ev) and seconds (s) of training until the train loss was "
                 "that low; “—” where the median seed did not get there; “2/3 seeds” where not all did. "
                 "Marked: the best of a column, of a target by seconds.")
_DIFFERENCES = ("Source: {}. Losses without regularizer. What differs here: random numbers; another "
                "L-BFGS, on all layers at once (batched); float64; unless rates were given, the learning "
                "rates of the first-order optimizers are tuned.")
_WAYS = (("Vary it: depth, width, steps and noise are options, and fields of one object:",
          "pontryagin reproduce sine --layers 40 --samples 200 --methods emsa,adam"),
         ("The same principle on a network of yours:",
          "pontryagin compare --model my.module:Net --data my.module:load --methods emsa,adam --tune 100"))
_GLOSSARY = {
    "Gain": "How much the new control of a stage raises its Hamiltonian at the old states and costates. "
            "Summed over the stages (the optimality gap, mu) it predicts the decrease of J, the objective.",
    "Feasibility error": "How far the new control moves the states and costates that the gain took as fixed, "
                         "squared. When it outweighs the gain, J can rise although a decrease was predicted.",
    "rho": "The price of feasibility errors in the argmax: a large rho means short, safe steps; rho = 0 is "
           "basic MSA."}


def draw_figures(folder: Path) -> list[Drawing]:
    """Every picture that the run's data allow, as folder/figures/NAME.png, 10 inches wide at 150 dots per
    inch.

    A drawing is left out when the rows that it needs are not there. Raises ReportError when metrics.csv or
    summary.json is missing, or any file is not what is expected.
    """
    from pontryagin.papers.sine.losses import loss_figure
    from pontryagin.papers.sine.stages import feasibility, gain
    from pontryagin.papers.sine.states import states
    from pontryagin.papers.sine.steps import decrease, divergence, rho
    from pontryagin.run.figures.canvas import draw

    run = read_folder(folder)
    sketches = {"states": states, "decrease": decrease, "gain": gain, "feasibility": feasibility, "rho": rho,
                "divergence": divergence}
    return draw(folder,
                {"figure-1a": lambda: loss_figure(run, "a"), "figure-1b": lambda: loss_figure(run, "b"),
                         **{name: partial(sketched, run) for name, sketched in sketches.items()}})


def write_report(folder: Path, drawings: Sequence[Drawing]) -> Path:
    """folder/report.html from summary.json and the drawings, which are embedded. Raises ReportError."""
    summary = read_summary(folder / "summary.json")
    results, others = summary["results"], {drawing.name: drawing for drawing in drawings}
    blocks = _lead(summary)
    for figure, methods in results.items():
        drawing = others.pop(f"figure-1{figure}", None)
        blocks += [Heading(figure_title(figure)), *([drawing] if drawing else []), _results(methods),
                   _COLUMNS]
    if any(summary["paper"].values()):
        blocks += [Heading("Beside the paper"),
                   _DIFFERENCES.format(summary.get("paper_source") or "the paper"), _beside(summary["paper"])]
    blocks += tuned(summary["tuning"], results, summary.get("tuning_rule", ""))
    blocks += [Heading("How to read the following"), _GLOSSARY] if others else []
    blocks += [block for drawing in others.values() for block in (Heading(drawing.title), drawing)]
    name = "Learning the sine" if summary["experiment"] == "sine" else summary["experiment"]
    return write_page(folder, f"{name} by the maximum principle", summary, blocks, Banner(
        "Interrupted.", "This run was stopped before its end: methods, seeds or iterations are missing, "
        "and the numbers are those reached by then."), headline(summary), _WAYS)


def headline(summary: Result) -> str:
    """E-MSA beside the paper's and beside Adam, of the first figure that has it; empty where none has."""
    for figure, methods in summary["results"].items():
        ours = methods.get("emsa", {}).get("train_loss", {}).get("median")
        if not _is_finite(ours):
            continue
        paper = summary["paper"].get(figure, {}).get("emsa-paper")
        adam = methods.get("adam", {})
        said = [f"{figure_title(figure)}: E-MSA ends at a mean squared error of {number(ours)} after "
                f"{count(methods['emsa']['iterations'])} iterations"]
        if paper:
            whose = "the authors' code" if "code" in summary.get("paper_source", "") else "the paper's E-MSA"
            said.append(f"{whose} at {given(paper['loss'])} after {count(paper['iteration'])}")
        if adam and _is_finite(adam["train_loss"]["median"]):
            said.append(f"Adam with a tuned rate at {number(adam['train_loss']['median'])} after "
                        f"{count(adam['iterations'])}")
        return ", ".join(said) + "."
    return ""


def _lead(summary: Result) -> list[Block]:
    """What was computed, and which method reached what."""
    results = summary["results"]
    methods = in_order({method: None for figure in results.values() for method in figure})
    if not methods:
        return ["No method had been run."]
    seeds = sorted({entry["seeds"] for figure in results.values() for result in figure.values()
                    for entry in result["iterations_to"].values()})
    counts = " or ".join(map(str, seeds))
    runs = f", with {counts} {'seed' if seeds == [1] else 'seeds'} each" if seeds else ""
    task = _TASK if summary["experiment"] == "sine" else f"The experiment {summary['experiment']}, run"
    blocks: list[Block] = [Markup(
        "{} by {} {}{}: {}. Where several seeds ran, numbers are medians over them.").format(
        task, len(methods), "method" if len(methods) == 1 else "methods", runs,
        join(list(map(named, methods))))]
    for figure, found in results.items():
        told = sentences(found, summary["diverged"].get(figure, {}))
        blocks += [bold(figure_title(figure)), told] if told else []
    return blocks


def sentences(methods: Mapping[str, Result], diverged: Mapping[str, Sequence[str]]) -> list[Markup]:
    """One figure: the lowest loss, who reached the strictest loss first, who did not, who diverged.

    diverged: why seeds of a method were stopped, a message a seed.
    """
    final = {method: methods[method]["train_loss"]["median"] for method in in_order(methods)}
    ended = {method: loss for method, loss in final.items() if _is_finite(loss)}
    found = []
    if ended:
        lowest = min(ended, key=lambda method: ended[method])
        if "emsa" in ended and lowest != "emsa":
            found.append(_ended("emsa", methods, ": "))
        found.append("Lowest final train loss: " + _ended(lowest, methods, ", "))
    reached = [target for target in targets(methods)
               if any(_median(result, "iterations_to", target) is not None for result in methods.values())]
    if reached:
        found += _reached(methods, reached[-1])
    elif targets(methods):
        found.append(Markup("No method's median seed reached {}.").format(given(float(targets(methods)[0]))))
    broken = [named(method) for method in final if method not in ended]
    if broken:
        found.append(Markup("Final train loss not finite: {}.").format(join(broken)))
    stopped = [Markup("{} ({} {})").format(named(method), len(diverged[method]),
                                           "seed" if len(diverged[method]) == 1 else "seeds")
               for method in in_order(diverged) if diverged[method]]
    if stopped:
        found.append("Stopped early because something was no longer finite: " + join(stopped) + ".")
    return found


def _ended(method: str, methods: Mapping[str, Result], then: str) -> Markup:
    return Markup("{}{}{} after {} iterations.").format(
        named(method), then, number(methods[method]["train_loss"]["median"]),
        count(methods[method]["iterations"]))


def _reached(methods: Mapping[str, Result], target: str) -> list[Markup]:
    """Who reached the loss, at which cost, and who did not."""
    iterations, seconds = ({method: cost for method in in_order(methods)
                            if (cost := _median(methods[method], name, target)) is not None}
                           for name in ("iterations_to", "seconds_to"))
    took = [Markup("{} {} iterations{}").format(
        named(method), count(iterations[method]),
        f" ({number(seconds[method])} s)" if method in seconds else "") for method in iterations]
    found = [Markup("A train loss of {}, the lowest of those asked for that the median seed of a method "
                    "reached, took {}.").format(given(float(target)), join(took))]
    if len(iterations) > 1:
        timed = {method: cost for method, cost in seconds.items() if method in iterations}
        least = Markup("; least time: {}").format(named(min(timed, key=timed.__getitem__))) if timed else ""
        found.append(Markup("Fewest iterations: {}{}.").format(
            named(min(iterations, key=iterations.__getitem__)), least))
    others = [named(method) for method in in_order(methods) if method not in iterations]
    return [*found, Markup("Median seed not there: {}.").format(join(others))] if others else found


def _results(methods: Mapping[str, Result]) -> Cells:
    """A row a method."""
    losses, order = targets(methods), in_order(methods)
    head = ["method", "learning rate", "iterations run", "ms per iteration", "final train loss",
            "final test loss", *(unbroken(f"to {given(float(target))}") for target in losses)]
    rows = []
    for method in order:
        result = methods[method]
        seconds = result["seconds_per_iteration"]
        rows.append([label(method), given(result["learning_rate"]), count(result["iterations"]),
                     number(1000 * seconds) if isinstance(seconds, (int, float)) else NONE,
                     spread(result["train_loss"]), spread(result["test_loss"]),
                     *(reach(result, target) for target in losses)])
    results = [methods[method] for method in order]
    marked = {3: [result["seconds_per_iteration"] for result in results],
              4: [result["train_loss"]["median"] for result in results],
              5: [result["test_loss"]["median"] for result in results],
              **{column: [_median(result, "seconds_to", target) for result in results]
                 for column, target in enumerate(losses, start=6)}}
    return Cells(head, rows, best=best(marked))


def reach(result: Result, target: str) -> Markup:
    """Cell: iterations, evaluations and seconds to a loss, and the seeds if not all reached it."""
    entry = result["iterations_to"].get(target)
    if entry is None or not entry["reached"]:
        return stack(NONE)
    evaluations, seconds = (result[cost].get(target, {}).get("median")
                            for cost in ("evaluations_to", "seconds_to"))
    first = NONE if entry["median"] is None else Markup("{} it <br>{} ev <br>{} s").format(
        count(entry["median"]), count(evaluations), number(seconds))
    return stack(first, *([] if entry["reached"] == entry["seeds"]
                          else [f"{entry['reached']}/{entry['seeds']} seeds"]))


def _beside(paper: Mapping[str, Mapping[str, Result]]) -> Cells:
    """The losses of others beside ours at the same iterations."""
    rows = []
    for figure, values in paper.items():
        for method in in_order(values):
            for one in values[method].get("losses", [values[method]]):
                here = one.get("here")
                rows.append([f"({figure})", label(method), count(one["iteration"]), given(one["loss"]),
                             NONE if here is None else spread(here)])
    return Cells(["figure", "method", "at iteration", "source: loss", "here: train loss"], rows, names=2)


def _median(result: Result, cost: str, target: str) -> float | None:
    value = result[cost].get(target, {}).get("median")
    return float(value) if _is_finite(value) else None


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and isfinite(value)
