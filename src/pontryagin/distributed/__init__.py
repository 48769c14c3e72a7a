"""Many processes: who maximizes which stage, and how results travel."""

from pontryagin.distributed.agreement import all_or_none, raise_together, require_same
from pontryagin.distributed.assignment import Owners, assign, loads, reassign, share
from pontryagin.distributed.communicator import Alone, Communicator, Processes
from pontryagin.distributed.shared_propagation import SharedPropagation
from pontryagin.distributed.stage_models import GroupModel, StageModels
from pontryagin.distributed.stage_parallel import StageParallel, group_controls
from pontryagin.distributed.start import join, launched
from pontryagin.errors import LostProcessError

__all__ = ["Alone", "Communicator", "GroupModel", "LostProcessError", "Owners", "Processes",
           "SharedPropagation", "StageModels", "StageParallel", "all_or_none", "assign", "group_controls",
           "join", "launched", "loads", "raise_together", "reassign", "require_same", "share"]
