"""All pictures of a run directory: which there are, and how they become files."""

from collections.abc import Callable
from pathlib import Path

from pontryagin.run.figures.canvas import Sketch, png, style
from pontryagin.run.figures.curves import loss_figure
from pontryagin.run.figures.solution_figure import states
from pontryagin.run.figures.stage_maps import feasibility, gain
from pontryagin.run.figures.step_figures import decrease, divergence, rho
from pontryagin.run.files import write_bytes
from pontryagin.run.tables import Drawing, Run, read_run

_SKETCHES: dict[str, Callable[[Run], Sketch | None]] = {
    "figure-1a": lambda run: loss_figure(run, "a"),
    "figure-1b": lambda run: loss_figure(run, "b"),
    "states": states,
    "decrease": decrease,
    "gain": gain,
    "feasibility": feasibility,
    "rho": rho,
    "divergence": divergence,
}
"""By file name, in the order of the report."""


def draw_figures(directory: Path) -> list[Drawing]:
    """Every picture that the run's data allow, as directory/figures/<name>.png, 10 inches wide at 150 dots
    per inch.

    A drawing is left out when the rows that it needs are not there. Raises ReportError when metrics.csv or
    summary.json is missing, or any file is not what is expected.
    """
    run = read_run(directory)
    drawings = []
    with style():
        for name, sketch_of in _SKETCHES.items():
            sketch = sketch_of(run)
            if sketch is not None:
                path = directory / "figures" / f"{name}.png"
                write_bytes(path, png(sketch.figure))
                drawings.append(Drawing(name, sketch.title, sketch.caption, path))
    return drawings
