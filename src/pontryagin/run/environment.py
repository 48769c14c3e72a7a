"""On what a run was made: versions and machine, in words that a reader can compare."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch


def versions() -> dict[str, str]:
    """Of Python and of the packages that matter, "absent" for those not installed."""
    found = {"python": platform.python_version()}
    for package in ("pontryagin", "torch", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def machine() -> dict[str, str | int]:
    """System, processor and threads."""
    return {"system": f"{platform.system()} {platform.machine()}", "processor": _processor(),
            "threads": torch.get_num_threads(), "byteorder": sys.byteorder}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor()
    return platform.processor()
