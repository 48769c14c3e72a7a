"""Where data sets are looked for on this machine."""

import os
from pathlib import Path

from pontryagin.run.data.catalog import IdxFile, ImageSet
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
    base = Path(where).expanduser()
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


def holds_all(base: Path, wanted: ImageSet) -> bool:
    """Whether a folder has all files, by name."""
    return all(find(base, file) for file in wanted.files)
