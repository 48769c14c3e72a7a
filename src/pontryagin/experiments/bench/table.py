"""The result of a benchmark as a table, a picture and a page."""

import base64
import csv
import json
from html import escape
from pathlib import Path
from typing import Any

from pontryagin.experiments.figures.canvas import new_figure, png, style
from pontryagin.experiments.run_directory import write_bytes, write_text


def write_page(folder: Path) -> str:
    """report.html with the table, the curves and the settings; returns the table as text."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    rows = table(summary)
    picture = _draw(folder, summary)
    encoded = base64.b64encode(picture.read_bytes()).decode()
    cells = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    details = escape(json.dumps({key: summary[key] for key in ("settings", "tuning", "versions", "machine")}, indent=2))
    write_text(folder / "report.html", f"""<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>Optimizers on the clock</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}}
table{{border-collapse:collapse;font-size:14px;display:block;overflow-x:auto}}td{{padding:.25em .7em;border-bottom:1px solid #ddd;
white-space:nowrap}}tr:first-child{{font-weight:600}}img{{max-width:100%}}pre{{overflow-x:auto;background:#f6f6f6;padding:1em}}</style>
<h1>Optimizers on the clock: {escape(summary["settings"]["task"])}</h1>
{"<p><b>Interrupted: only what had been measured is shown.</b></p>" if summary["interrupted"] else ""}
<p><code>{escape(summary["command"])}</code></p><table>{cells}</table>
<p>Cost: seconds of an iteration relative to tuned Adam. Memory: growth of the resident set relative to Adam. A target's column
holds iterations, seconds, and in brackets tuned Adam's seconds divided by them (median over seeds, range): above 1 is sooner
than Adam. A dash: not reached by most seeds. Train loss is that of the current controls on a thousand fixed training samples,
measured every five iterations outside the timed region; {escape(summary["schedule"])}.
Rates: {escape(summary["tuning_rule"])}.</p>
<img alt="train loss against iterations and seconds" src="data:image/png;base64,{encoded}">
<details><summary>Settings, tuning, versions, machine</summary><pre>{details}</pre></details></html>
""")
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def table(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """A header, then a row a method."""
    results = summary["results"]
    first: dict[str, Any] = next(iter(results.values()), {"to_loss": {}, "to_score": {}})
    losses, scores = list(first["to_loss"]), list(first["to_score"])
    rows = [("method", "rate", "cost", "memory", *(f"loss {t}" for t in losses), *(f"{summary['score']} {t}" for t in scores),
             "end loss", f"end {summary['score']}")]
    for name, result in results.items():
        rows.append((name, f"{result['learning_rate']:g}", _range(result["cost"], ".2f"),
                     "-" if result["memory"] is None else f"{result['memory']:.2f}",
                     *(_target(result["to_loss"][t]) for t in losses), *(_target(result["to_score"][t]) for t in scores),
                     _range(result["train_loss"], ".3g"), _range(result["score"], ".4g")))
    return rows


def _range(spread: dict[str, Any], form: str) -> str:
    if spread["median"] is None:
        return "-"
    return f"{spread['median']:{form}} [{spread['min']:{form}}, {spread['max']:{form}}]"


def _target(found: dict[str, Any]) -> str:
    if found["iterations"]["median"] is None:
        return "-"
    ratio = _range(found["adam_over_this"], ".2f")
    return f"{found['iterations']['median']:.0f} it, {found['seconds']['median']:.1f} s ({ratio})"


def _draw(folder: Path, summary: dict[str, Any]) -> Path:
    """Train loss of the first seed against iterations and seconds."""
    curves: dict[str, list[tuple[int, float, float]]] = {}
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["seed"] == "0" and row["train_loss"]:
                curves.setdefault(row["method"], []).append(
                    (int(row["iteration"]), float(row["seconds"]), float(row["train_loss"])))
    with style():
        figure = new_figure(4.5)
        left, right = figure.subplots(1, 2, sharey=True)
        for name, points in curves.items():
            wide = 2.6 if name == "emsa" else 1.4
            left.plot([p[0] for p in points], [p[2] for p in points], label=name, linewidth=wide)
            right.plot([p[1] for p in points], [p[2] for p in points], label=name, linewidth=wide)
        left.set(xlabel="iteration", ylabel="train loss", yscale="log")
        right.set(xlabel="seconds")
        if curves:
            right.legend(frameon=False)
        content = png(figure)
    path = folder / "figures" / "train-loss.png"
    write_bytes(path, content)
    return path
