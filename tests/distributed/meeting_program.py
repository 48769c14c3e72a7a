"""A rank that joins the others, or leaves when it has met them, before there is a process group."""

import os
import sys
from typing import Any

from torch import distributed

from pontryagin.distributed import join
from pontryagin.errors import LostProcessError


def leaving(*arguments: Any, **named: Any) -> Any:
    """It dies where it has met the others."""
    next(_USUAL(*arguments, **named))
    os._exit(0)


_USUAL = distributed.rendezvous
if __name__ == "__main__":
    if sys.argv[1] == "leaves":
        distributed.rendezvous = leaving
    try:
        with join(timeout=2):
            print("joined")
    except LostProcessError as error:
        sys.exit(str(error))
