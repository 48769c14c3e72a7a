"""The optimizers of the benchmark: those of a training, and two of its own."""

from pontryagin.run.methods import BENCH_ONLY
from pontryagin.run.methods import METHODS as TRAINED

METHODS = {name: TRAINED[name] for name in (
    "emsa", "adam", "adam-averaged", "adamw", "schedule-free", "sgd-momentum", "muon", "soap")} | BENCH_ONLY
