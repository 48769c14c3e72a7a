"""What a run or a trained network is like, read from records and models: nothing here changes anything."""

from pontryagin.diagnostics.audit_result import Audit, Restriction, StageAudit
from pontryagin.diagnostics.audit_run import audit, auditing

__all__ = ["Audit", "Restriction", "StageAudit", "audit", "auditing"]
