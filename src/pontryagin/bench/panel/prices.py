"""What an iteration costs: process time beside AdamW's, all methods in turn in one process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from time import process_time
from typing import Any

from pontryagin.bench.panel.network import Network, Work
from pontryagin.bench.panel.trial import OPTIONS
from pontryagin.bench.racers import METHODS
from pontryagin.run.race import Run

SECONDS, LEAST = 1.5, 48
"""Of AdamW, and iterations at least: three looks of EMSA at least."""
WARM = 17
"""Iterations before the measurement: moments are refreshed in the first, second, fourth, eighth and
sixteenth."""
CLASSES = (("below 5 ms", 0.0, 5.0, 1.3), ("5 to 20 ms", 5.0, 20.0, 1.15),
           ("from 20 ms", 20.0, float("inf"), 1.05))
"""By milliseconds of AdamW's iteration; and the ratio that is aimed at."""
COLUMNS = ("network", "method", "milliseconds", "with_refreshes", "ratio", "ratio_with_refreshes")
REFERENCE = "adamw-foreach"


@dataclass(frozen=True)
class Price:
    """Milliseconds of an iteration: the median, and the mean, which has the refreshes in it."""

    usual: float
    mean: float


def variants(methods: Sequence[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name in the table: method and options. AdamW in two implementations of torch's, EMSA, the others."""
    return {REFERENCE: ("adamw", {"foreach": True}), "adamw-fused": ("adamw", {"fused": True}),
            "emsa": ("emsa", {}),
            **{name: (name, OPTIONS.get(name, {})) for name in methods if name != "adamw"}}


def measure(network: Network, work: Work, methods: Sequence[str],
            advance: Callable[[int, None], None]) -> dict[str, Price]:
    """All side by side from the same weights on the same batches, an iteration each in turn."""
    runs = {name: _run(work, method, options) for name, (method, options) in variants(methods).items()}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(WARM + max(LEAST, network.iterations("adamw", SECONDS))):
        for name, run in runs.items():
            before = run.watch.seconds
            with run.generators():
                if not run.ended and run.iterate() is not None and number >= WARM:
                    found[name].append(1e3 * (run.watch.seconds - before))
        advance(number, None)
    return {name: Price(median(each), fmean(each)) for name, each in found.items() if each}


def _run(work: Work, name: str, options: Mapping[str, Any]) -> Run:
    """At its method's customary rate."""
    method = METHODS[name]
    return Run(method, 0, method.rates[0], work.workload(0), 10**9, options=options, clock=process_time)


def rows(network: str, found: Mapping[str, Price]) -> list[tuple[Any, ...]]:
    """As COLUMNS has them."""
    by = found[REFERENCE]
    return [(network, name, price.usual, price.mean, price.usual / by.usual, price.mean / by.mean)
            for name, price in found.items()]


def summarize(found: Mapping[str, Mapping[str, Price]]) -> dict[str, Any]:
    """EMSA beside AdamW by size of the iteration."""
    results: dict[str, Any] = {}
    for name, least, most, aim in CLASSES:
        own = {network: prices["emsa"].usual / prices[REFERENCE].usual for network, prices in found.items()
               if least <= prices[REFERENCE].usual < most and "emsa" in prices}
        if own:
            results[name] = {"aim": aim, "median": median(own.values()), "max": max(own.values()),
                             "within": sum(each <= aim for each in own.values()), "networks": len(own)}
    return results
