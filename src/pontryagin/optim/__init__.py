"""The torch optimizer: EMSA for any module."""

from pontryagin.optim.acceptance import Acceptance
from pontryagin.optim.emsa import EMSA

__all__ = ["EMSA", "Acceptance"]
