"""The same numbers for TensorBoard."""

from pathlib import Path
from typing import Any

from pontryagin.run.job import Point


class Tracking:
    """An event file a job in folder/NAME. After a resume, TensorBoard hides what had been written after the
    checkpoint."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # the settings have asked whether it is there

        self._make, self._folder = SummaryWriter, folder
        self._writers: dict[str, Any] = {}

    def record(self, name: str, point: Point) -> None:
        """Losses, accuracies and diagnostics of an iteration."""
        if name not in self._writers:
            self._writers[name] = self._make(str(self._folder / name), purge_step=point.iteration)
        step, values = point.step, {}
        if step is not None:
            values = {"batch_loss": step.loss, "rho": step.rho, "optimality_gap": step.optimality_gap}
        for part, scores in (("train", point.train), ("test", point.test)):
            if scores is not None:
                values |= {f"{part}_loss": scores.loss, f"{part}_accuracy": scores.accuracy}
        for key, value in values.items():
            if value is not None:
                self._writers[name].add_scalar(key, value, point.iteration)

    def close(self) -> None:
        """Write what waits."""
        for writer in self._writers.values():
            writer.close()
