"""Rules for the penalties rho, one file each: what a trial is penalized with, and whether it is taken."""

from pontryagin.update.penalty.accept_reject import AcceptReject
from pontryagin.update.penalty.fixed import Fixed
from pontryagin.update.penalty.from_estimate import FromEstimate
from pontryagin.update.penalty.paper import PaperPenalty
from pontryagin.update.penalty.per_stage import PerStageEstimate
from pontryagin.update.penalty.relative_costates import RelativeCostates
from pontryagin.update.penalty.rule import PenaltyRule, Trial

__all__ = ["AcceptReject", "Fixed", "FromEstimate", "PaperPenalty", "PenaltyRule", "PerStageEstimate",
           "RelativeCostates",
           "Trial"]
