"""Steps compiled before a run begins, so that its clock does not count it."""

from functools import cache

import torch
from torch import nn

from pontryagin.optim.compiled import compiler
from pontryagin.optim.emsa import EMSA
from pontryagin.optim.mean_variance import CompiledProbe

_STEPS = 12
"""All of the first eight are looked at: those after them are ordinary."""


@cache
def compile_ahead(dtype: torch.dtype) -> None:
    """Some fifteen seconds, once a machine; half a second of reading what is kept, once a process. Random
    numbers go on as if nothing had been drawn."""
    if compiler() is None or dtype not in (torch.float32, torch.float64):
        return
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        for rows in (8, 40):  # by rows and polar
            model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).to("cpu", dtype)
            optimizer = EMSA(model)
            for _ in range(_STEPS):
                optimizer.zero_grad()
                loss = model(torch.randn(rows, 4, dtype=dtype)).square().mean()
                loss.backward()
                optimizer.step(loss=loss.detach())
        CompiledProbe().add(torch.zeros(1, 4, 2))
