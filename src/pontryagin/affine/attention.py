"""The maps to queries, keys and values of torch's attention; out_proj is never called, so it is no map."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.affine.affine_map import AffineMap, Arguments, dense, plain
from pontryagin.affine.registry import register
from pontryagin.affine.rows import thinned

_ATTENDED = ("query", "key", "value")
_OF_THREE = 512
"""Rows of each that enter the moments where they differ: what EMSA takes of any layer by default."""


def _attention(module: nn.MultiheadAttention) -> list[tuple[AffineMap, ...]]:
    """Where all three are made of one x, it is one map to all of them; else each is a map of its own, a group
    where the three weights are one parameter. Where keys and values have sizes of their own the weights are
    three parameters."""
    if module.in_proj_weight is None:  # in_proj_bias is one parameter over three stages: it is left out
        return [(dense(module, f"{name[0]}_proj_weight", inputs=_attended(number), outputs=None,
                       is_dense=False),)
                for number, name in enumerate(_ATTENDED)]
    bias = "in_proj_bias" if module.in_proj_bias is not None else None
    own = dense(module, "in_proj_weight", bias, inputs=_shared, outputs=None, is_dense=False)
    shape = module.in_proj_weight.shape
    cross = AffineMap("MultiheadAttention", "in_proj_weight", bias, lambda x: x,
                      lambda w: w.reshape(3, -1, w.shape[-1]), lambda matrix: matrix.reshape(shape), None,
                      inputs=_three, row_axes=lambda x: 0)
    return [(own, cross)]


def _given(arguments: Arguments, named: dict[str, Any]) -> tuple[Any, ...]:
    """Queries, keys and values; None for those that are not known."""
    given = dict(zip(_ATTENDED, arguments, strict=False)) | named
    return tuple(given.get(name) for name in _ATTENDED)


def _attended(number: int) -> Callable[..., Tensor | None]:
    return lambda arguments, named, output=None: plain(_given(arguments, named)[number])


def _shared(arguments: Arguments, named: dict[str, Any], output: Any = None) -> Tensor | None:
    query, key, value = _given(arguments, named)
    return plain(query) if query is key and query is value else None


def _three(arguments: Arguments, named: dict[str, Any], output: Any = None) -> Tensor | None:
    """As many rows of queries, keys and values, (3, row, input): those that there are fewer of come several
    times."""
    parts = [plain(each) for each in _given(arguments, named)]
    if any(part is None or not part.numel() for part in parts) or len({id(part) for part in parts}) == 1:
        return None
    rows = [part.detach().reshape(-1, part.shape[-1]) for part in parts if part is not None]
    count = min(max(len(each) for each in rows), _OF_THREE)
    return torch.stack([each[(torch.arange(count, device=each.device) * len(each)) // count]
                        if len(each) <= count else thinned(each, count) for each in rows])


register(nn.MultiheadAttention, _attention)
