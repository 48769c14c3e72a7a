"""The torch optimizer: EMSA for any module."""

from pontryagin.optim.acceptance import Acceptance, AcceptanceRule
from pontryagin.optim.emsa import EMSA
from pontryagin.optim.estimated_acceptance import EstimatedAcceptance

__all__ = ["EMSA", "Acceptance", "AcceptanceRule", "EstimatedAcceptance"]
