"""Which data sets there are, and where each is looked for on this machine."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pontryagin.run.data.catalog import IMAGE_SETS, IdxFile, ImageSet
from pontryagin.run.errors import ExperimentError

FOLDER = "PONTRYAGIN_DATA"
CACHE = "PONTRYAGIN_CACHE"


def cache_folder() -> Path:
    """PONTRYAGIN_CACHE, or pontryagin in the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    own = os.environ.get(CACHE)
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "pontryagin"


def cached(wanted: ImageSet) -> Path:
    """The folder of this data set in the cache."""
    return cache_folder() / "data" / wanted.name


def named_folder(wanted: ImageSet, folder: str | Path | None) -> Path | None:
    """The folder that an option or PONTRYAGIN_DATA names, or its subfolder of the data set's name.

    A folder named by an option must hold all files; ExperimentError otherwise. That of PONTRYAGIN_DATA may
    lack them all.
    """
    where = folder or os.environ.get(FOLDER)
    if not where:
        return None
    try:
        base = Path(where).expanduser()
    except RuntimeError as error:
        raise ExperimentError(f"{where}: there is no such user") from error
    base = base / wanted.name if (base / wanted.name).is_dir() else base
    missing = [file.name for file in wanted.files if find(base, file) is None]
    if not missing:
        return base
    if folder or len(missing) < len(wanted.files):
        source = "" if folder else f" (from {FOLDER})"
        raise ExperimentError(f"{base}{source}: expected the files of {wanted.name}, plain or .gz; missing "
                              f"are {', '.join(missing)}")
    return None


def find(base: Path, file: IdxFile) -> Path | None:
    """The file in a folder, plain or gzipped."""
    return next((path for path in (base / file.name, base / f"{file.name}.gz") if path.is_file()), None)


def locate(wanted: ImageSet, folder: str | Path | None = None) -> Path | None:
    """The first place on this machine that holds all files, by name; None when they must be fetched."""
    others = [cached(wanted)] + ([Path(wanted.debian)] if wanted.debian else [])
    return named_folder(wanted, folder) or next(
        (place for place in others if all(find(place, file) for file in wanted.files)), None)


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
