"""The moments that a process has of the inputs of a stage, as one vector that travels, and those of several
processes as those of all their rows."""

import torch
from torch import Tensor

from pontryagin.affine import Moments
from pontryagin.optim.own_units import First
from pontryagin.optim.stage import AffineStage


def packed(stage: AffineStage) -> Tensor:
    """Numbers of rows, in the moments and all, 1 where they are no data, mean, product and trace in one."""
    taken, zeros = stage.captured.take(), stage.zeros()
    own = zeros if taken is None else taken.to(zeros.mean.dtype)
    captured = stage.captured
    counts = [0.0] * 3 if taken is None else [taken.count, float(captured.positions),
                                              float(not captured.are_data)]
    return torch.cat([own.mean.new_tensor(counts), own.mean.flatten(), own.product.flatten(), own.trace])


def _split(stage: AffineStage, packed: Tensor) -> tuple[Tensor, Moments]:
    zeros = stage.zeros()
    counts, mean, product, trace = packed.split([3, zeros.mean.numel(), zeros.product.numel(),
                                                 zeros.trace.numel()])
    return counts, Moments(mean.view_as(zeros.mean), product.reshape(zeros.product.shape), trace.clone(),
                           zeros.block)


def merged(stage: AffineStage, rows: Tensor) -> Tensor:
    """Of the rows of all: means weigh by their numbers, and their spread is variance too."""
    parts = [_split(stage, row) for row in rows if row[0] > 0]
    if not parts:
        return rows[0]
    total = sum(counts for counts, _ in parts)
    shares = [counts[0] / total[0] for counts, _ in parts]  # type: ignore[index]
    mean = sum(share * one.mean for share, (_, one) in zip(shares, parts, strict=True))
    for _, one in parts:
        one.product = one.product.clone()
        one.add_outer(one.mean - mean, 1.0)
    product = sum(share * one.product for share, (_, one) in zip(shares, parts, strict=True))
    trace = sum(share * one.trace for share, (_, one) in zip(shares, parts, strict=True))
    return torch.cat([total, mean.flatten(), product.flatten(), trace])  # type: ignore[union-attr, list-item]


def unpacked(stage: AffineStage, packed: Tensor) -> tuple[Moments | None, First]:
    """The moments, None without rows, and how many rows there are of what."""
    counts, moments = _split(stage, packed)
    rows, positions, made = counts.tolist()
    moments.product, moments.count = moments.product.clone(), rows
    return (moments if rows else None), First(round(positions), made == 0)
