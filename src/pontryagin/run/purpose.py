"""What a run is for, where that is more than a training: an experiment of the paper adds its own to summary
and report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def nothing(directory: Path, summary: dict[str, Any]) -> str:
    """No section."""
    return ""


@dataclass(frozen=True)
class Purpose:
    """experiment: its name in summary.json. title: of the report, by default the task's. paper: values of the
    paper, by method, for summary.json. tuning: the scores of learning rates tried before the run, by method
    and rate, with the rule and budget in words. section: HTML for the report, after the results, from the
    folder and the summary. command: what resumes the run."""

    experiment: str = "train"
    title: str = ""
    paper: Mapping[str, Any] = field(default_factory=dict)
    tuning: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    tuning_rule: str = ""
    section: Callable[[Path, dict[str, Any]], str] = nothing
    command: str = ""
