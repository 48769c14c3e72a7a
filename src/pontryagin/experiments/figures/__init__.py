"""Pictures of a run."""

from pontryagin.experiments.figures.draw import draw_figures
from pontryagin.experiments.run_files import Drawing, ReportError

__all__ = ["Drawing", "ReportError", "draw_figures"]
