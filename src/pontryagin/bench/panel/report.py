"""The panel as a table, a picture and a page."""

import json
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from pontryagin.bench.panel.contest import LONGER, OURS
from pontryagin.bench.panel.ratio import LEAST, MOST, SHARES, geometric
from pontryagin.bench.panel.trial import APPLIED, CHECKPOINTS
from pontryagin.run.figures.method_style import style_of
from pontryagin.run.files import write_text
from pontryagin.run.reports.page import Block, Cells, Heading, pictures, write_page
from pontryagin.run.reports.words import lines, number
from pontryagin.run.tables import Sketch

_WAYS = (("The same question of a network and data of yours:",
          "pontryagin compare --model my.module:Net --data my.module:load --methods emsa,adamw,muon "
          "--tune 100"),)
TITLES = {"emsa": "EMSA at its defaults", "emsa-tuned": "EMSA with its rate found"}
WORDS = (
    "Best rival: of the tuned ones, that with the least median end loss. A ratio is its process time to "
    "its own loss after a quarter, half and the whole of its run, divided by EMSA's time to that loss "
    "within EMSA's run of equal seconds: median over seeds [range]; above 1 EMSA is sooner. <: EMSA "
    f"never came there, not in a run of {LONGER:g} times the iterations either. Times are in iterations "
    f"of AdamW (fused), measured {APPLIED} times within every run, so that the hour of a run does not "
    f"count. Losses are those of fixed training samples, measured at {len(CHECKPOINTS)} points outside "
    "the timed region, of the averages where a method keeps them. Rates fall linearly to zero, but for "
    "schedule-free AdamW. Least: the smallest ratio to the end loss of any rival. Loss: EMSA's over the "
    "best rival's when that rival's run ends. Cost: process time of EMSA's iteration beside AdamW's, "
    f"refreshes and all. In a geometric mean a ratio counts at least {LEAST:g}, that of a run that "
    f"failed, and at most {MOST:g}. The networks marked * are those on which EMSA's defaults were "
    "chosen; they are not counted.")


def write_report(folder: Path) -> str:
    """report.html, report.md and table.csv; returns the tables as text."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    texts: list[str] = []
    blocks: list[Block] = []
    for title, words, rows in tables(summary):
        texts += [title, lines(rows)]
        blocks += [Heading(title), words, Cells(rows[0], rows[1:])]
    drawn: list[Block] = []
    if summary["contests"]:
        drawn = pictures(folder, {"panel": lambda: _picture(summary)})
    write_page(folder, "The panel: EMSA beside tuned rivals", summary,
               [*drawn, *blocks, *_unfinished(summary)], headline=_said(summary), ways=_WAYS)
    write_text(folder / "report.md", "\n".join(markdown(summary)))
    return "\n\n".join([*texts, *map(str, _unfinished(summary))])


def tables(summary: Mapping[str, Any]) -> list[tuple[str, str, list[tuple[str, ...]]]]:
    """Title, explanation, header and rows of all that there is."""
    found = []
    if contests := summary["contests"]:
        found.append(("In short", "", headline(summary)))
        found += [(TITLES[name], WORDS if name == "emsa" else "", contest_table(summary, name))
                  for name in OURS]
        found.append(("Tuned", "Rate, weight decay and warm-up; median end loss.", tuned_table(contests)))
    if summary["regrets"]:
        found.append(("Regret", "Iterations at the default rate over those of the soonest rate to the same "
                      "loss, that of the end at the default.", regret_table(summary["regrets"])))
    if summary["prices"]:
        found += [("Prices", "Milliseconds of process time an iteration, median; ratios to AdamW (foreach) "
                   "of medians (of means, which have the refreshes in them).",
                   price_table(summary["prices"]["networks"])),
                  ("Prices by size", "", class_table(summary["prices"]["classes"]))]
    return found


def markdown(summary: Mapping[str, Any]) -> list[str]:
    """The same for a page of documentation."""
    texts = [f"# The panel\n\n    {summary['command']}\n"]
    for title, words, rows in tables(summary):
        texts += [f"## {title}\n", f"{words}\n" if words else "", "| " + " | ".join(rows[0]) + " |",
                  "|---" * len(rows[0]) + "|", *("| " + " | ".join(row) + " |" for row in rows[1:]), ""]
    return [*texts, *map(str, _unfinished(summary)), ""]


def counted(summary: Mapping[str, Any], name: str, share: str) -> dict[str, float]:
    """The median ratio of every network that is counted."""
    return {network: _middle(found[name][share]) for network, found in summary["contests"].items()
            if not summary["networks"][network]["tuned_on"]}


def headline(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Counts and geometric means over the networks that are counted."""
    rows: list[tuple[str, ...]] = [
        ("", "networks", "sooner to the end loss", "geometric mean, end", "half", "quarter", "least, end",
         "its network")]
    for name in OURS:
        found = {share: counted(summary, name, share) for share in SHARES}
        if end := found["end"]:
            worst = min(end, key=end.__getitem__)
            rows.append((TITLES[name], str(len(end)), str(sum(ratio > 1 for ratio in end.values())),
                         *(f"{geometric(list(found[share].values())):.2f}"
                           for share in ("end", "half", "quarter")),
                         f"{end[worst]:.2f}", worst))
    return rows


def _said(summary: Mapping[str, Any]) -> str:
    """On how many networks EMSA was sooner, and the mean ratio."""
    end = counted(summary, "emsa", "end") if summary["contests"] else {}
    return (f"EMSA at its defaults is at the best rival's end loss sooner on "
            f"{sum(ratio > 1 for ratio in end.values())} of {len(end)} networks; geometric mean of the "
            f"ratios "
            f"{geometric(list(end.values())):.2f}, above 1 EMSA is sooner.") if end else ""


def contest_table(summary: Mapping[str, Any], name: str) -> list[tuple[str, ...]]:
    """A row a network."""
    rows = [("network", "best rival", *SHARES, "least", "loss", "cost", "rate")]
    for network, found in summary["contests"].items():
        star = " *" if summary["networks"][network]["tuned_on"] else ""
        loss = [each for each in found[name]["loss_at_equal_seconds"] if each is not None]
        rows.append((network + star, style_of(found["best_rival"]).label,
                     *(_range(found[name][share]) for share in SHARES),
                     _number(found[name]["least_of_rivals"]), number(median(loss)) if loss else "-",
                     f"{found['cost'][name]:.2f}", f"{found['choices'][name]['rate']:g}"))
    return rows


def tuned_table(contests: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What every method was given, and where it ended."""
    names = list(next(iter(contests.values()))["choices"])
    rows = [("network", *(TITLES.get(name, style_of(name).label) for name in names))]
    for network, found in contests.items():
        cells = []
        for name in names:
            choice, ends = found["choices"][name], found["end_loss"][name]
            failed = sum(end is None for end in ends)
            middle = median(inf if end is None else end for end in ends)
            cells.append(f"{choice['rate']:g}" + (f", {choice['decay']:g}" if choice["decay"] else "")
                         + (f", {choice['warmup']:g}" if choice["warmup"] else "") + f": {middle:.3g}"
                         + (f" ({failed} failed)" if failed else ""))
        rows.append((network, *cells))
    return rows


def regret_table(regrets: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row a network, and the end losses."""
    rates = sorted({rate for found in regrets.values() for rate in found["losses"]}, key=float)
    middle = median(_finite(found["regret"]) for found in regrets.values())
    return [("network", "regret", "soonest rate", *(f"loss at {rate}" for rate in rates)),
            *((network, _number(found["regret"]), f"{found['best_rate']:g}",
               *("failed" if found["losses"].get(rate) is None else f"{found['losses'][rate]:.3g}"
                 for rate in rates)) for network, found in regrets.items()),
            ("median", _number(middle), *("" for _ in range(len(rates) + 1)))]


def price_table(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row a network."""
    methods = list(dict.fromkeys(method for prices in found.values() for method in prices))
    rows = [("network", *(f"{method}, ms" for method in methods),
             *(f"{method}, ratio" for method in methods[1:]))]
    for network, prices in found.items():
        by = prices[methods[0]]
        cells = [prices.get(method) for method in methods]
        rows.append((network, *("-" if one is None else f"{one['usual']:.2f}" for one in cells),
                     *("-" if one is None else
                       f"{one['usual'] / by['usual']:.2f} ({one['mean'] / by['mean']:.2f})"
                       for one in cells[1:])))
    return rows


def class_table(classes: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """EMSA beside AdamW (foreach) by size of the iteration."""
    return [("AdamW's iteration", "networks", "median ratio", "largest", "aim", "within the aim"),
            *((name, str(found["networks"]), f"{found['median']:.2f}", f"{found['max']:.2f}",
               f"{found['aim']:g}", str(found["within"])) for name, found in classes.items())]


def _unfinished(summary: Mapping[str, Any]) -> list[Block]:
    return [f"Not finished: {', '.join(summary['unfinished'])}."] if summary["unfinished"] else []


def _finite(value: float | None) -> float:
    """JSON has null for what is infinite."""
    return inf if value is None else value


def _middle(ratios: Sequence[Mapping[str, Any]]) -> float:
    return median(_finite(one["value"]) for one in ratios)


def _is_bound(ratios: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the middle one is."""
    values = sorted((_finite(one["value"]), bool(one["bound"])) for one in ratios)
    return values[len(values) // 2][1]


def _range(ratios: Sequence[Mapping[str, Any]]) -> str:
    values = sorted(_finite(one["value"]) for one in ratios)
    middle = ("< " if _is_bound(ratios) else "") + _number(_middle(ratios))
    return middle if len(values) == 1 else f"{middle} [{_number(values[0])}, {_number(values[-1])}]"


def _number(value: float | None) -> str:
    return "inf" if _finite(value) == inf else f"{value:.2f}"


def _shown(ratio: float) -> float:
    """Within what the picture has."""
    return min(max(ratio, LEAST), MOST)


def _picture(summary: Mapping[str, Any]) -> Sketch:
    """Every network a row: the ratio to the end loss, median and range, on a logarithmic axis."""
    from pontryagin.run.figures.canvas import INK, entry, legend_below, log_ticks, new_figure
    from pontryagin.run.figures.method_style import BLUE, ORANGE

    contests = summary["contests"]
    order = sorted(contests, key=lambda name: (summary["networks"][name]["tuned_on"],
                                               -_middle(contests[name]["emsa"]["end"])), reverse=True)
    sheet = new_figure(1.6 + 0.24 * len(order))
    axes = sheet.subplots()
    for place, network in enumerate(order):
        color = ORANGE if summary["networks"][network]["tuned_on"] else BLUE
        values = [_shown(_finite(one["value"])) for one in contests[network]["emsa"]["end"]]
        bound = _is_bound(contests[network]["emsa"]["end"])
        axes.plot([min(values), max(values)], [place, place], color=color, linewidth=2.2)
        axes.plot(median(values), place, color=color, marker="<" if bound else "o", markersize=6)
        quarter, tuned = (_shown(_middle(contests[network][name][share]))
                          for name, share in (("emsa", "quarter"), ("emsa-tuned", "end")))
        axes.plot(quarter, place, color=color, marker="|", markersize=9, linestyle="none")
        axes.plot(tuned, place, color=color, marker="D", markersize=4, linestyle="none",
                  markerfacecolor="none")
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_xscale("log")
    log_ticks(axes.xaxis)
    axes.set_yticks(range(len(order)), [f"{name} ({style_of(contests[name]['best_rival']).label})"
                                        for name in order])
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlabel("time of the best tuned rival over EMSA's: above 1 EMSA is sooner")
    legend_below(sheet, [entry("to the end loss, at the defaults", BLUE, "o"),
                         entry("never came there: below", BLUE, "<"),
                         entry("to the loss at a quarter", BLUE, "|"),
                         entry("end, rate found", BLUE, "D", markerfacecolor="none"),
                         *([entry("tuned on", ORANGE, "o")] if any(
                             summary["networks"][network]["tuned_on"] for network in order) else [])])
    return Sketch("EMSA beside the best of the tuned rivals",
                  "Process time of the best rival (in brackets) to its end loss, over EMSA's time to it: "
                  "median and range over seeds. Orange: the networks on which EMSA's defaults were "
                  "chosen.", sheet)
