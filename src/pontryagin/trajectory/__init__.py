"""Where the current controls lead: states forward, costates backward."""

from pontryagin.trajectory.checkpointed import Segment, checkpointed
from pontryagin.trajectory.group import ByTime, StageGroup, group_stages, stage_group
from pontryagin.trajectory.propagate import Propagation, Trajectory, propagate, terminal_costs

__all__ = ["ByTime", "Propagation", "Segment", "StageGroup", "Trajectory", "checkpointed", "group_stages",
           "propagate", "stage_group", "terminal_costs"]
