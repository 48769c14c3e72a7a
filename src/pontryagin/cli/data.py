"""`pontryagin data`: what there is, and fetching it."""

import os
from dataclasses import dataclass

from pontryagin.cli.options import Call, Command
from pontryagin.run.data.catalog import image_set
from pontryagin.run.data.fetch import MIRRORS, fetch
from pontryagin.run.data.places import CACHE, FOLDER, cache_folder, cached, inventory
from pontryagin.run.option import option
from pontryagin.run.progress import TerminalProgress


@dataclass(frozen=True)
class ListSettings:
    """Where else to look."""

    data: str | None = option(f"a folder with IDX files (or {FOLDER})", None)


@dataclass(frozen=True)
class FetchSettings:
    """What from where."""

    name: str = option("mnist or fashion-mnist, or both with a comma")
    mirror: str | None = option("addresses whose subfolders mnist and fashion-mnist hold the files (or "
                                f"{MIRRORS})", None)


def _list(call: Call) -> bool:
    entries = list(inventory(call.make(ListSettings).data))
    width = max(len(entry.name) for entry in entries)
    call.say(*(f"{entry.name:{width}}  {entry.content}: {entry.place}" for entry in entries),
             f"Cache: {cache_folder()} (another by {CACHE})")
    return False


def _fetch(call: Call) -> bool:
    settings = call.make(FetchSettings)
    chosen = [image_set(name.strip()) for name in settings.name.split(",")]
    if settings.mirror is not None:
        os.environ[MIRRORS] = settings.mirror
    for wanted in chosen:
        fetch(wanted, TerminalProgress(call.console))
        call.say(f"{wanted.name}: verified, in {cached(wanted)}")
    return False


COMMANDS = {
    "data": Command(
        _list, "List the data sets and where each is: in the folder of --data or PONTRYAGIN_DATA, in the "
               "cache, in the "
        "folder of Debian's dataset-fashion-mnist, or not yet on this machine.", (ListSettings,),
        config=False),
    "fetch": Command(
        _fetch,
        "Fetch data sets from public mirrors into the cache. Interrupted downloads go on where they stopped; "
        "what arrives is verified before it is kept.", (FetchSettings,), config=False),
}
