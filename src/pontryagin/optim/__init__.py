"""The torch optimizer: EMSA for any module."""

from pontryagin.optim.averaged import Averaged
from pontryagin.optim.emsa import EMSA
from pontryagin.optim.evaluated import evaluate_averages
from pontryagin.optim.pilot import FoundRate, Pilot
from pontryagin.optim.promise import Bound
from pontryagin.optim.rate_search import find_lr
from pontryagin.optim.search import Acceptance, AcceptanceRule, EstimatedAcceptance
from pontryagin.optim.settings import Constraint, Metric, StageOwners

__all__ = ["EMSA", "Acceptance", "AcceptanceRule", "Averaged", "Bound", "Constraint", "EstimatedAcceptance",
           "FoundRate", "Metric", "Pilot", "StageOwners", "evaluate_averages",
           "find_lr"]
