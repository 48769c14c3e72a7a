"""What a size of a network may be."""

from pontryagin.run.errors import ExperimentError


def positive(**sizes: int) -> None:
    """Each must be a whole number of at least 1. Raises ExperimentError that names the first which is not."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ExperimentError(f"{name}: expected a whole number >= 1, found {size!r}")
