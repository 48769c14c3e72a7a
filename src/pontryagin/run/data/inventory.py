"""Which data sets there are, and where each would be read from."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pontryagin.run.data.catalog import IMAGE_SETS
from pontryagin.run.data.images import locate
from pontryagin.run.errors import ExperimentError


@dataclass(frozen=True)
class Entry:
    """A data set: its name, what it is, and where it is, or what is wrong there."""

    name: str
    content: str
    place: str


def inventory(folder: str | Path | None = None) -> Iterator[Entry]:
    """Every data set that load_images and load_text know; nothing is fetched or verified."""
    digits = "inside scikit-learn" if find_spec("sklearn") else "missing: pip install 'pontryagin[data]'"
    yield Entry("digits", "1500 + 297 images of 8x8, 10 classes", digits)
    for wanted in IMAGE_SETS.values():
        try:
            place = locate(wanted, folder)
        except ExperimentError as error:
            yield Entry(wanted.name, _SIZES, str(error))
            continue
        missing = f"not on this machine: pontryagin data fetch {wanted.name}"
        yield Entry(wanted.name, _SIZES, missing if place is None else str(place))
    yield Entry("text", "about 5 million characters, 97 different ones", "Python's standard library")


_SIZES = "55000 + 5000 + 10000 images of 28x28, 10 classes"
