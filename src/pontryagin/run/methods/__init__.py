"""The methods of training, each by the name that options, tables and figures use.

A new one is a file with its Method, and its name in METHODS.
"""

from collections.abc import Mapping, Sequence

from pontryagin.run.methods.discrete import BINARY_CONNECT, BOP, LI_HAO
from pontryagin.run.methods.emsa import EMSA
from pontryagin.run.methods.gradient import (
    ADAGRAD,
    ADAM,
    ADAM_AVERAGED,
    ADAM_DEFAULT,
    ADAMW,
    SGD,
    SGD_MOMENTUM,
)
from pontryagin.run.methods.method import Method, MethodStyle
from pontryagin.run.methods.muon import MUON
from pontryagin.run.methods.packaged import SCHEDULE_FREE, SHAMPOO, SOAP
from pontryagin.run.methods.paper_emsa import EMSA_PAPER
from pontryagin.run.study import choose as named

__all__ = ["BENCH_ONLY", "METHODS", "Method", "MethodStyle", "choose"]

METHODS = {method.name: method for method in (
    EMSA, EMSA_PAPER, SGD, SGD_MOMENTUM, ADAGRAD, ADAM, ADAM_AVERAGED, ADAMW, SCHEDULE_FREE, MUON, SOAP,
    LI_HAO, BOP, BINARY_CONNECT)}
BENCH_ONLY = {method.name: method for method in (SHAMPOO, ADAM_DEFAULT)}
"""Of the benchmark alone: one whose state no checkpoint can hold, and Adam as it comes."""


def choose(names: Sequence[str] | None, methods: Mapping[str, Method] = METHODS) -> list[Method]:
    """The methods with these names, in the order of `methods`; all if None, also those whose package is
    missing. Raises ExperimentError for a name that is unknown or whose package is missing."""
    return list(methods.values()) if names is None else named("method", names, methods)
