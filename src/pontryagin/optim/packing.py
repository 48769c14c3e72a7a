"""Which groups of equal stages are packed together: those that cost less so, zeros and all."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from pontryagin.optim.group import StageGroup
from pontryagin.optim.packed import Pack, shape_of
from pontryagin.optim.stage import AffineStage


class Cost(NamedTuple):
    """Of the steps of a pack. least: so many numbers it may have at any rate; most: with one thread, of which
    each of several allows its part, for loops over a pack go on in one; saved: flops that take as long as the
    calls that one group fewer saves; work: flops of a step of so many matrices, outputs and inputs."""

    least: int
    most: int
    saved: float
    work: Callable[[int, int, int], float]

    @property
    def largest(self) -> int:
        """Numbers of a pack."""
        return max(self.least, self.most // torch.get_num_threads())


def _row_work(count: int, outputs: int, inputs: int) -> float:
    return 2.0 * count * outputs * (inputs + 1) * (inputs + outputs + 10 if inputs > 1 else 10)


def _polar_work(count: int, outputs: int, inputs: int) -> float:
    less, more = sorted((outputs, inputs + 1))
    return 2.0 * count * (2 * outputs * (inputs + 1)**2 + 2 * less * less * more + 9 * less**3)


BY_ROWS = Cost(1 << 18, 1 << 21, 1.5e6, _row_work)
POLAR = Cost(1 << 20, 1 << 20, 2e7, _polar_work)
"""Beyond that the passes over a pack's tensors cost more than the calls."""


def packed(groups: Sequence[StageGroup], cost: Cost) -> list[StageGroup | Pack]:
    """Small groups of stages that share their settings together, as long as the zeros cost less than the
    calls that are saved; the others as they are."""
    found: list[StageGroup | Pack] = [group for group in groups if not _is_small(group, cost)]
    packs: list[list[StageGroup]] = []
    for group in sorted(groups, key=lambda group: -group.first.stage.inputs):
        if not _is_small(group, cost):
            continue
        best = min(packs, key=lambda parts: _work([*parts, group], cost) - _work(parts, cost), default=None)
        if best is not None and _fit(best, group, cost):
            best.append(group)
        else:
            packs.append([group])
    return found + [Pack(parts) for parts in packs]


def _is_small(group: StageGroup, cost: Cost) -> bool:
    """Whether it may be in a pack, where biases move at the rates of their weights, and rows are views, of
    polar steps of more than single inputs."""
    first = group.first
    small = group.count * first.stage.outputs * (first.stage.inputs + 1) <= cost.largest
    one_rate = first.bias is None or first.groups[0] == first.groups[1]
    fitting = cost is not POLAR or _kind(group) != "single"
    return small and one_rate and fitting and not first.stage.map.one_hot and _is_viewed(first.stage)


def _is_viewed(stage: AffineStage) -> bool:
    """Whether rows with zeros beside them have the weight's shape without a copy: not those of transposed
    convolutions with groups."""
    rows = torch.empty(stage.groups, stage.outputs, stage.inputs + 1)
    shaped = stage.map.shaped(rows[..., :stage.inputs])
    return shaped.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr()


def _fit(parts: Sequence[StageGroup], group: StageGroup, cost: Cost) -> bool:
    count, outputs, inputs = shape_of([*parts, group])
    alike = _kind(parts[0]) == _kind(group) != "subspace"
    if not alike or count * outputs * (inputs + 1) > cost.largest:
        return False
    # the rows of several matrices of one weight lie side by side
    several = any(size > 1 for part in (*parts, group) for size in part.sizes)
    equal = len({part.first.stage.outputs for part in (*parts, group)}) == 1
    return (equal or not several) and (
        _work([*parts, group], cost) <= _work(parts, cost) + _work([group], cost) + cost.saved)


def _kind(group: StageGroup) -> str:
    stage = group.first.stage
    if not stage.is_exact:
        return "subspace"
    return "single" if stage.inputs == 1 else "directions" if group.first.has_directions else "whole"


def _work(parts: Sequence[StageGroup], cost: Cost) -> float:
    return cost.work(*shape_of(parts))
