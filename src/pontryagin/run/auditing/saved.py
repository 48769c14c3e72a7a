"""An audit, read again from the summary.json of its folder."""

from collections.abc import Mapping
from typing import Any

from pontryagin.audit import Audit, Restriction, StageAudit
from pontryagin.run.errors import ExperimentError

_DERIVED = ("gain", "gain_error", "agreement")


def read_audit(results: Mapping[str, Any]) -> Audit:
    """What `Audit.to_dict` gave, stages and restrictions by their names. Raises ExperimentError for other
    content."""
    try:
        stages = tuple(StageAudit(**{
            **stage, "shape": tuple(stage["shape"]),
            "restrictions": tuple(Restriction(**each) for each in stage["restrictions"].values())})
            for stage in results["stages"].values())
        rest = {name: value for name, value in results.items() if name not in _DERIVED}
        return Audit(**{**rest, "stages": stages, "sets": tuple(results["sets"])})
    except (TypeError, KeyError, AttributeError) as error:
        raise ExperimentError(f"summary.json: its results are not those of an audit ({error}): it has been "
                              "changed; audit again") from error
