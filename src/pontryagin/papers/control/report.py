"""report.html of `reproduce control`: the table, and every solution over t."""

import json
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pontryagin.papers.control.experiment import DRAWN, METHODS, ControlResults, Found
from pontryagin.papers.control.problems import CASES
from pontryagin.run.figures.canvas import INK, MASKED, entry, legend_below, log_ticks, new_figure
from pontryagin.run.figures.method_style import BLUE, GREEN, ORANGE, PINK, RED, SKY, WINE
from pontryagin.run.reports.page import Banner, Block, Cells, Heading, pictures, write_page
from pontryagin.run.reports.words import NONE, lines, number
from pontryagin.run.tables import Sketch

_TITLE = "Classical problems of optimal control"
_COLORS = (BLUE, RED, GREEN, PINK, ORANGE, SKY)
_WAYS = (("One problem by itself:", "pontryagin reproduce control --problems minimum-time"),
         ("A problem of yours is one object:",
          "python -c \"import pontryagin; help(pontryagin.continuous.solve)\""))
_HEAD = ("problem", "J", "optimum", "relative error", "residual", "iterations", "seconds",
         "L-BFGS-B: relative error", "iterations", "seconds", "seconds / L-BFGS-B's")


def write_report(folder: Path, results: ControlResults) -> tuple[Path, str]:
    """The figures and report.html, beside the run's summary.json; returns its path and the table as text."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    rows = [_row(name, results) for name in results.found]
    blocks: list[Block] = [
        Cells(_HEAD, rows),
        "J of the maximum principle to second order (NewtonMSA) and of scipy's L-BFGS-B with its own "
        "tolerances, by direct single shooting on the same gradients and from the same start; with "
        "constraints inside the same augmented Lagrangian. Process time from the problem to the solution, "
        "one thread, the fastest of the repeats. Residual: mean over t of the largest Hamiltonian less that "
        "of the control.",
        "Optima: " + "; ".join(f"{CASES[name].title}: {CASES[name].source}" for name in results.found) + "."]
    if results.integer:
        blocks += [Heading("Fishing by whole boats"),
                   "The control 0 or 1: the relaxed control rounded so that their integrals stay within half "
                   "a step, and then intervals flipped by the maximum principle over {0, 1}.",
                   Cells(("intervals", "relaxed", "rounded", "after flips", "flips"),
                         [[str(one.intervals), *(f"{value:.6f}" for value in (
                             one.relaxed, one.rounded, one.improved)), str(one.flips)]
                          for one in results.integer])]
    drawings = pictures(folder, {name: partial(_solution, name, results) for name in results.residuals},
                        titles=True)
    page = write_page(folder, _TITLE, summary, [*blocks, *drawings],
                      Banner("Interrupted.", "Problems are missing."), _headline(results), _WAYS)
    return page, lines([_HEAD, *rows]) if rows else ""


def _headline(results: ControlResults) -> str:
    """How near the optima, and beside scipy's time."""
    both = {name: [found[method] for method in METHODS] for name, found in results.found.items()
            if all(found.get(method) is not None for method in METHODS)}
    if not both:
        return ""
    errors = [abs(ours.solution.objective - CASES[name].optimum()) / abs(CASES[name].optimum())
              for name, (ours, _) in both.items()]
    ratios = [ours.seconds / others.seconds for ours, others in both.values()]
    least, most = number(min(ratios)), number(max(ratios))
    if len(both) == 1:
        return f"J within {number(errors[0])} of the optimum, relatively, in {most} of the time of L-BFGS-B."
    return (f"{len(both)} problems: J within {number(max(errors))} of every optimum, relatively, in "
            f"{least} to {most} of the time of L-BFGS-B.")


def _row(name: str, results: ControlResults) -> list[str]:
    ours, others = (results.found[name].get(method) for method in METHODS)
    optimum = CASES[name].optimum()

    def error(found: Found | None) -> str:
        return NONE if found is None else number(abs(found.solution.objective - optimum) / abs(optimum))

    cells = [name, NONE if ours is None else f"{ours.solution.objective:.7g}", f"{optimum:.7g}", error(ours),
             number(float(results.residuals[name].residual.mean())) if name in results.residuals else NONE]
    for found in (ours, others):
        if found is others:
            cells.append(error(others))
        cells += [NONE, NONE] if found is None else [str(found.solution.iterations), number(found.seconds)]
    both = ours is not None and others is not None
    return [*cells, number(ours.seconds / others.seconds) if both and ours and others else NONE]


def _solution(name: str, results: ControlResults) -> Sketch:
    """States, costates, control, switching function with the residual."""
    found, over, case = results.found[name]["newton"].solution, results.residuals[name], CASES[name]
    sheet = new_figure(5.6)
    (states, costates), (control, switching) = sheet.subplots(2, 2, sharex=True)
    t = found.t.numpy()
    for axes, values, title in ((states, found.states, "States"), (costates, found.costates, "Costates")):
        for component in range(values.shape[2]):
            axes.plot(t, values[:, :DRAWN, component].numpy(), color=_COLORS[component], linewidth=1.3,
                      label=[f"component {component}", *["_more"] * (min(DRAWN, values.shape[1]) - 1)])
        axes.set_title(title)
    _control(control, found.values.flatten(1).numpy(), t)
    low, high = (float(bound[0]) for bound in found.discretization.problem.box)
    for axes in (control, switching):
        if case.switch is not None:
            axes.axvline(case.switch, color=MASKED, linewidth=1.0, linestyle=(0, (4, 2)))
    for bound in (low, high):
        if np.isfinite(bound):
            control.axhline(bound, color=MASKED, linewidth=0.8)
    switching.axhline(0, color=MASKED, linewidth=0.8)
    switching.plot(over.t.numpy(), over.switching.numpy(), color=INK, linewidth=1.3)
    switching.set_title("Switching function and residual")
    below = switching.twinx()
    below.plot(over.t.numpy(), over.residual.numpy(), ".", color=WINE, markersize=3)
    below.set_yscale("log")
    below.set_ylim(bottom=max(float(over.residual.max()) * 1e-6, 1e-16))
    log_ticks(below.yaxis)
    below.set_ylabel("residual", color=WINE)
    below.grid(visible=False)
    for axes in (control, switching):
        axes.set_xlabel("time t")
    legend_below(sheet, [entry(f"component {component}", _COLORS[component])
                         for component in range(found.states.shape[2])]
                 + [entry("control, dH/dtheta", INK), entry("residual (logarithmic, right)", WINE, ".")],
                 columns=6)
    shown = f" States and costates of {DRAWN} of the samples." if found.states.shape[1] > DRAWN else ""
    return Sketch(case.title, "Grey: bounds, zero, and where the optimal control jumps. dH/dtheta is zero "
                  "where the control is inside its bounds, and points outwards where it is on one. The "
                  f"residual is what the Hamiltonian still lacks of its maximum over theta.{shown}", sheet)


def _control(axes: Axes, values: np.ndarray, t: np.ndarray) -> None:
    """Steps where the control is constant between the nodes, lines where it is linear."""
    if len(values) == len(t):
        axes.plot(t, values, color=INK, linewidth=1.3)
    else:
        axes.step(t, np.concatenate([values, values[-1:]]), where="post", color=INK, linewidth=1.3)
    axes.set_title("Control")
