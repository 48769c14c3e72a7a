"""The state as it was before a look, should the step that follows not be finite."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

_MOMENTS = ("mean", "moment", "basis", "values", "tail", "refreshes", "by_operator", "square", "long_square")
"""What a look changes in place."""


class Undo:
    """Copies of what a look changes in some states."""

    def __init__(self, states: Iterable[dict[str, Any]]) -> None:
        self._before: list[tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]] = [
            (state, dict(state), {name: state[name].clone() for name in _MOMENTS if name in state})
            for state in states]

    def restore(self) -> None:
        """All as it was."""
        for state, entries, copies in self._before:
            state.clear()
            state.update(entries)
            state.update(copies)
