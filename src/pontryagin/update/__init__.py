"""Penalty rules, accelerations, and the solvers MSA and extended MSA."""

from pontryagin.update.acceleration import Acceleration, Momentum, Plain, Secant
from pontryagin.update.asynchronous import AsynchronousMSA, AsynchronousRecord
from pontryagin.update.ending import Ending, Iterations
from pontryagin.update.msa import MSA, ExtendedMSA
from pontryagin.update.newton import NewtonMSA, NewtonRecord
from pontryagin.update.penalty import (
    AcceptReject,
    Fixed,
    FromEstimate,
    PaperPenalty,
    PenaltyRule,
    PerStageEstimate,
    RelativeCostates,
    Trial,
)
from pontryagin.update.perturbation import Perturbation
from pontryagin.update.record import IterationRecord, StageRecord

__all__ = ["MSA", "Acceleration", "AcceptReject", "AsynchronousMSA", "AsynchronousRecord", "Ending",
           "ExtendedMSA", "Fixed", "FromEstimate", "IterationRecord", "Iterations", "Momentum", "NewtonMSA",
           "NewtonRecord", "PaperPenalty", "PenaltyRule", "PerStageEstimate", "Perturbation", "Plain",
           "RelativeCostates", "Secant", "StageRecord", "Trial"]
