"""Figures and report.html of an audit."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from pontryagin.audit import Audit, Restriction
from pontryagin.run.reports.page import Banner, Block, Cells, Heading, pictures, write_page
from pontryagin.run.reports.words import NONE, best, number, stack

_READING = {
    "Gain": "What this stage alone could still gain by its argmax, all other stages as they are: the "
            "Hamiltonian gain at the step where the quadratic model of the loss is best, in units of the "
            "loss; that model promises half of it as decrease. It is a mean over pairs of different batches, "
            "so noise adds nothing, and it may come out a little below zero.",
    "Gain here": "The same for the audited samples taken as all the data there is; never negative.",
    "Condition, effective rank": "Of the second moment A of the stage's inputs: largest over smallest "
                                 "eigenvalue, damped; tr(A)² / tr(A²) of as many as there are inputs.",
    "Cost of a set": "Change of the mean loss when this stage alone is moved to the nearest point of the "
                     "set; predicted from the costates of the outputs, true where it was measured. A "
                     "negative cost is a gain."}


def write_report(folder: Path, audit: Audit | None) -> Path:
    """folder/figures/*.png and folder/report.html, from the audit and summary.json; audit: None where it was
    stopped before it had found something. Raises ReportError."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    title = f"Audit of {summary['settings']['model']}"
    if audit is None:
        return write_page(folder, title, summary, [], Banner("Interrupted.", "Nothing had been found yet."))
    sketches = {"stages": lambda: _figures().stages(audit), "costs": lambda: _figures().costs(audit)}
    told = list(_lead(audit))
    blocks: list[Block] = [told[:1] + told[2:], *pictures(folder, sketches, titles=True),
                           Heading("Stage by stage"), _stages(audit)]
    if audit.sets:
        blocks += [Heading("Costs of the sets, predicted / true"), _costs(audit)]
    blocks += [Heading("How to read this"), _READING]
    if audit.unseen:
        blocks += [Heading("Not audited"),
                   Cells(["parameter", "why"], list(audit.unseen.items()), prose=True)]
    return write_page(folder, title, summary, blocks, Banner(
        "Interrupted.", "True costs are missing where they had not been measured yet."), _headline(audit),
        _ways(audit))


def _headline(audit: Audit) -> str:
    """Which stage could still gain most, and which set costs least for all stages together."""
    top = max(audit.stages, key=lambda stage: stage.gain or 0.0, default=None)
    if top is None:
        return ""
    if (top.gain or 0.0) <= 2 * (top.gain_error or 0.0):
        return (f"No stage's gain stands out of its error: this network, at a loss of {number(audit.loss)}, "
                "is nearly converged on this part of the data, layer by layer.")
    return (f"{top.name} could still gain most: {number(top.gain)} ± {number(top.gain_error)}, of a loss of "
            f"{number(audit.loss)}.")


def _ways(audit: Audit) -> list[tuple[str, str]]:
    ways = [("Train on: a gain well above its error is still to be had by more iterations, or a larger "
             "rate, of its stage.", "")]
    if audit.sets:
        ways.append(("Stages at which a set costs least can be moved into it first: docs/discrete-weights.md "
                     "says how to train in the set from here on.", ""))
    return ways


def _figures() -> ModuleType:
    from pontryagin.run.figures import audit

    return audit


def _lead(audit: Audit) -> Iterator[str]:
    yield (f"Mean loss ({audit.loss_name}) {number(audit.loss)} ± {number(audit.loss_error)} over "
           f"{audit.samples} samples in {audit.batches} batches; {len(audit.stages)} stages.")
    yield ("Hamiltonian gain still to be had, all stages together: "
           f"{number(audit.gain)} ± {number(audit.gain_error)}.")
    if top := max(audit.stages, key=lambda stage: stage.gain or 0.0, default=None):
        beside = "" if (top.gain or 0.0) > 2 * (top.gain_error or 0.0) else ", within its error of the others"
        yield f"Largest gain at {top.name}: {number(top.gain)} ± {number(top.gain_error)}{beside}."
    for name in audit.sets:
        if ranking := audit.ranking(name):
            (least, a), (most, b) = ranking[0], ranking[-1]
            agreement = audit.agreement(name)
            truth = "" if agreement is None else f"; rank correlation with the truth {agreement:.2f}"
            yield (f"{name}: costs least at {least.name} ({_cost(a)}), most at {most.name} "
                   f"({_cost(b)}){truth}.")


def _stages(audit: Audit) -> Cells:
    head = ["stage", "kind", "shape", "gain", "gain here", "costate norm", "condition", "effective rank"]
    marked = best({3: [stage.gain for stage in audit.stages]}, most=(3,))
    return Cells(head, [
        [stage.name, stage.kind, "×".join(map(str, stage.shape)),
         NONE if stage.gain is None else f"{number(stage.gain)} ± {number(stage.gain_error)}",
         number(stage.gain_here), number(stage.costate_norm), number(stage.condition),
         f"{stage.effective_rank:.1f} of {stage.inputs}"]
        for stage in audit.stages], best=marked)


def _costs(audit: Audit) -> Cells:
    stages = [stage for stage in audit.stages if stage.restrictions]
    found = [[stage.restriction(name) for name in audit.sets] for stage in stages]
    predicted = {column: [each.predicted if each else None for each in cells]
                 for column, cells in enumerate(zip(*found, strict=True), start=1)}
    return Cells(["stage", *audit.sets], [
        [stage.name, *(NONE if each is None else stack(_cost(each), f"rank {each.rank}") for each in row)]
        for stage, row in zip(stages, found, strict=True)], best=best(predicted))


def _cost(each: Restriction) -> str:
    return number(each.predicted) + ("" if each.true is None else f" / {number(each.true)}")
