"""Checkpointed parts are known by the hooks on what autograd saves, and, for a torch that does not tell of
these, by who has called whom: the same answers."""

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pontryagin.trajectory import recomputation


@pytest.mark.parametrize("older", [False, True])
def test_both_ways_tell_the_same(older: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if older:
        monkeypatch.setattr(recomputation, "_top", None)
    told: list[tuple[bool, bool]] = []

    def part(x: Tensor) -> Tensor:
        told.append((recomputation.is_checkpointed(), recomputation.is_recomputed()))
        return x.sin()

    x = torch.ones(3, requires_grad=True)
    part(x).sum().backward()
    checkpoint(part, x, use_reentrant=False).sum().backward()
    checkpoint(part, x, use_reentrant=True).sum().backward()
    part(x).sum().backward()
    no = (False, False)
    assert told == [no, (True, False), (True, True), no, no, no]


def test_hooks_of_others_are_no_checkpoint() -> None:
    assert not recomputation.hooked() or recomputation._top is None
    with torch.autograd.graph.save_on_cpu():
        assert recomputation.hooked()
        assert not recomputation.is_checkpointed()
