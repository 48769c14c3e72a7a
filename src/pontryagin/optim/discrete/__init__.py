"""Torch optimizers over discrete weights, entry by entry: the published rules and the baselines that they are
compared with."""

from pontryagin.optim.discrete.binary_connect import BinaryConnect, rounded
from pontryagin.optim.discrete.bop import Bop
from pontryagin.optim.discrete.li_hao import LiHao
from pontryagin.optim.discrete.weights import draw, inside, split_parameters

__all__ = ["BinaryConnect", "Bop", "LiHao", "draw", "inside", "rounded", "split_parameters"]
