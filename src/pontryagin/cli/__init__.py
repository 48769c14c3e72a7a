"""The command line."""

from pontryagin.cli.main import main

__all__ = ["main"]
