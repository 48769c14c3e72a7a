"""The tables of the report."""

import csv
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from benchmarks.device.costs import Cost
from benchmarks.device.methods import KINDS, RATES
from benchmarks.device.output import Output
from benchmarks.device.races import Race


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """In markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """In a table; a dash for what is unknown."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def cost_table(found: dict[str, dict[str, Cost]]) -> str:
    """Of all networks."""
    header = ("network", "method", "steps", "ms an iteration", "/ AdamW", "/ passes", "step ms", "host ms",
              "its step", "peak GiB", "syncs a step")
    rows = []
    for network, costs in found.items():
        floor, adam = (costs[name].median(0) if name in costs else math.nan for name in ("passes", "AdamW"))
        for method, cost in costs.items():
            lines = [(kind, cost.median(0, kind)) for kind in KINDS if kind in cost.steps]
            if cost.every:
                lines.append((f"steady, refresh every {cost.every}", cost.steady()))
            for kind, ms in lines:
                own = [number(cost.median(n, kind)) for n in (1, 2, 3)]
                more = [number(cost.peaks.get(kind), 4), number(cost.syncs.get(kind))]
                name = f"{network} ({cost.parameters / 1e6:.3g} M)"
                rows.append((name, method, kind, number(ms), number(ms / adam), number(ms / floor),
                             *own, *more))
    return table("Cost", header, rows)


def sync_table(out: Output) -> str:
    """Of EMSA's ordinary steps, by line."""
    path, found = out.folder / "syncs.csv", Counter()
    if path.exists():
        with path.open() as file:
            for row in csv.DictReader(file):
                if row["method"] == "EMSA" and row["kind"] == "ordinary":
                    site = row["network"], row["phase"], row["line"].replace("|", "/")
                    found[site] += float(row["per_step"])
    return table("Synchronizations in an ordinary step of EMSA", ("network", "phase", "line", "a step"),
                 [(*site, number(times)) for site, times in found.items()])


def race_table(races: list[Race]) -> str:
    """Ends of all runs."""
    rows = []
    for race in (race for race in races if race.points):
        last, total = race.points[-1], sum(race.shares.get(kind, 0.0) for kind in KINDS)
        extra = {kind: _extra(race, kind) / total if total else math.nan for kind in ("probe", "refresh")}
        rows.append((race.network, race.name, last[0], *(number(value, 4) for value in last[1:4]),
                     f"{last[4]:.2%}",
                     f"{extra['refresh']:.1%}, {extra['probe']:.1%}" if race.method == "EMSA" else "",
                     race.note))
    header = ("network", "method", "steps", "seconds", "held-out loss", "train loss", "accuracy",
              "time of refreshes, probes beyond ordinary steps", "note")
    return table("Races", header, rows)


def _extra(race: Race, kind: str) -> float:
    """ms that steps of a kind took beyond ordinary ones."""
    count = race.shares.get(f"{kind} steps", 0.0)
    ordinary = race.shares.get("ordinary", 0.0) / max(race.shares.get("ordinary steps", 0.0), 1)
    return race.shares.get(kind, 0.0) - count * ordinary


def crossing_table(races: list[Race]) -> str:
    """When EMSA reaches the end loss of a rival at its best rate, and the other way round."""
    rows = []
    for network in dict.fromkeys(race.network for race in races):
        own = next((race for race in races if race.network == network and race.method == "EMSA"), None)
        for method, column in ((method, column) for method in RATES for column in (2, 3)):
            rivals = [race for race in races if race.network == network and race.method == method]
            best = min(rivals, key=lambda race: race.end(column), default=None)
            if own is None or best is None or not math.isfinite(best.end(column) + own.end(column)):
                continue
            edge = " (edge of its grid)" if best.rate in (min(RATES[method]), max(RATES[method])) else ""
            seconds, steps = (own.reaches(best.end(column), column, clock) for clock in (1, 0))
            back, back_steps = (best.reaches(own.end(column), column, clock) for clock in (1, 0))
            total, own_total = best.points[-1][1], own.points[-1][1]
            rows.append((
                network, ("held-out", "train")[column - 2], best.name + edge, number(best.end(column), 4),
                number(own.end(column), 4), f"{number(seconds)} s, {number(steps)} steps",
                number(seconds / total), f"{number(back)} s, {number(back_steps)} steps",
                number(back / own_total)))
    header = ("network", "loss", "rival", "its end", "EMSA's end", "EMSA is at the rival's end after",
              "/ the rival's time", "the rival is at EMSA's end after", "/ EMSA's time")
    return table("Time to the other's end loss", header, rows)
