"""Whether what is computed now is a part that torch.utils.checkpoint computes twice, without reentrance."""

import sys
from types import FrameType
from typing import Any

import torch

_top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
"""What torch 2.6 does not have."""


def hooked() -> Any:
    """The hooks on what autograd saves, if there are any; where torch does not tell, there may be."""
    return True if _top is None else _top(True)


def is_checkpointed() -> bool:
    """Whether what is computed now will be computed, or is being computed, again."""
    if _top is None:
        return _is_within(sys._getframe())
    hooks = _top(True)
    return bool(hooks) and any(getattr(hook, "__module__", None) == "torch.utils.checkpoint"
                               for hook in hooks)


def is_recomputed() -> bool:
    """Whether this is the second computing of a checkpointed part, in a backward pass."""
    return torch._C._current_graph_task_id() != -1 and is_checkpointed()


def _is_within(frame: FrameType | None) -> bool:
    """The same by who has called whom: the first computing is within `checkpoint`, the second within
    `recompute_fn`."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            name, held = frame.f_code.co_name, frame.f_locals
            if name == "recompute_fn" or (name == "checkpoint" and held.get("use_reentrant") is False):
                return True
        frame = frame.f_back
    return False
