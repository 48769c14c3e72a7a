"""`pontryagin data`: what there is, and fetching it."""

import os
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from pontryagin.run.data.catalog import image_set
from pontryagin.run.data.fetch import MIRRORS, fetch
from pontryagin.run.data.places import CACHE, FOLDER, cache_folder, cached, inventory
from pontryagin.run.progress import TerminalProgress


def add_to(commands: Any) -> None:
    """Add `data` to the subcommands of the program."""
    own = ArgumentParser(allow_abbrev=False, description=(
        "List the data sets and where each is: in the folder of --data or PONTRYAGIN_DATA, in the cache, in "
        "the folder of Debian's dataset-fashion-mnist, or not yet on this machine."))
    own.add_argument("--data", type=str | None, default=None, help=f"a folder with IDX files (or {FOLDER})")
    commands.add_subcommand("data", own, help="list and fetch data sets")
    actions = own.add_subcommands(dest="action", required=False)
    actions.add_subcommand("fetch", _fetch_parser(), help="fetch data sets into the cache")


def run(settings: Namespace) -> bool:
    """List or fetch; never interrupted halfway."""
    console = Console()
    if settings.action == "fetch":
        return _fetch(settings.fetch, console)
    entries = list(inventory(settings.data))
    width = max(len(entry.name) for entry in entries)
    for entry in entries:
        console.print(f"{entry.name:{width}}  {entry.content}: {entry.place}", highlight=False,
                      soft_wrap=True, markup=False)
    console.print(f"Cache: {cache_folder()} (another by {CACHE})", highlight=False, soft_wrap=True,
                  markup=False)
    return False


def _fetch(options: Namespace, console: Console) -> bool:
    chosen = [image_set(name.strip()) for name in options.name.split(",")]
    if options.mirror is not None:
        os.environ[MIRRORS] = options.mirror
    for wanted in chosen:
        fetch(wanted, TerminalProgress(console))
        console.print(f"{wanted.name}: verified, in {cached(wanted)}", highlight=False, soft_wrap=True,
                      markup=False)
    return False


def _fetch_parser() -> ArgumentParser:
    options = ArgumentParser(allow_abbrev=False, description=(
        "Fetch data sets from public mirrors into the cache. Interrupted downloads go on where they stopped; "
        "what arrives is verified before it is kept."))
    options.add_argument("name", type=str, help="mnist or fashion-mnist, or both with a comma")
    options.add_argument("--mirror", type=str | None, default=None,
                         help="addresses whose subfolders mnist and fashion-mnist hold the files (or "
                              f"{MIRRORS})")
    return options
