"""Picture of the pilots that chose learning rates."""

from collections.abc import Mapping

from pontryagin.optim import FoundRate
from pontryagin.run.figures.canvas import log_ticks, new_figure
from pontryagin.run.figures.method_style import style_of
from pontryagin.run.tables import Sketch


def pilots(found: Mapping[str, FoundRate]) -> Sketch:
    """A panel for each method."""
    sheet = new_figure(3.6 * len(found))
    for axes, (method, one) in zip(sheet.subplots(len(found), squeeze=False)[:, 0], found.items(),
                                   strict=True):
        one.draw(axes)
        log_ticks(axes.yaxis)
        axes.set_title(f"{style_of(method).label}: {one.rate:g}")
    return Sketch("Pilots", "Losses of the batches in short runs, each with a schedule of its own, from the "
                            "weights and on the batches of the run. The best of the first ones went on, "
                            "longer, from the start again; thick: the rate that was found.", sheet)
