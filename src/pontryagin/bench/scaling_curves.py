"""The picture of `bench scaling`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pontryagin.run.figures.canvas import legend_below, log_ticks, new_figure, png, style
from pontryagin.run.files import write_bytes
from pontryagin.run.tables import Drawing


def draw_scaling(folder: Path, cases: Sequence[Mapping[str, Any]]) -> Drawing:
    """One process: seconds of an iteration by depth and by samples."""
    with style():
        sheet = new_figure(4.0)
        handles = {}
        for axes, series in zip(sheet.subplots(1, 2), ("depth", "samples"), strict=True):
            for name in dict.fromkeys(row["maximizer"] for row in cases):
                points = [(row[series], row["seconds"])
                          for row in cases if row["series"] == series and row["maximizer"] == name]
                if points:
                    handles[name], = axes.loglog(*zip(*points, strict=True), marker="o", label=name)
            axes.set_title(f"By {'depth' if series == 'depth' else 'samples'}")
            axes.set_xlabel("stages" if series == "depth" else "samples")
            axes.set_ylabel("seconds per iteration")
            log_ticks(axes.xaxis)
            log_ticks(axes.yaxis)
        legend_below(sheet, list(handles.values()))
        path = folder / "figures" / "scaling.png"
        write_bytes(path, png(sheet))
    return Drawing("scaling", "Seconds by depth and by samples",
                   "Seconds of an iteration of one process, on logarithmic axes.", path)
