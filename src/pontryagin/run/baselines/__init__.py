"""Torch optimizers that EMSA is compared with and torch lacks: Muon, and the published rules over discrete
weights, entry by entry."""

from pontryagin.run.baselines.discrete import BinaryConnect, Bop, LiHao
from pontryagin.run.baselines.entries import draw, inside, rounded, split_parameters
from pontryagin.run.baselines.muon import Muon, Several, muon

__all__ = ["BinaryConnect", "Bop", "LiHao", "Muon", "Several", "draw", "inside", "muon", "rounded",
           "split_parameters"]
