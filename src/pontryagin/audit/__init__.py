"""The Hamiltonian gap of any trained network, and what admissible sets would cost it: nothing here changes
anything."""

from pontryagin.audit.audit import audit, auditing
from pontryagin.audit.result import Audit, Restriction, StageAudit

__all__ = ["Audit", "Restriction", "StageAudit", "audit", "auditing"]
