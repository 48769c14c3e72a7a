"""Normalizations: z_c = gamma_c xhat_c + beta_c, a group of one input and one output for each component."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.func import vjp, vmap

from pontryagin.affine.affine_map import AffineMap, Arguments, Rows, bias_of, first_argument
from pontryagin.affine.registry import register

Normalize = Callable[[Any, Tensor], Tensor]
"""xhat of a module and its input."""
Axes = Callable[[Any, Tensor], int]


def scale(module: nn.Module, weight: str, bias: str | None, normalize: Normalize, channel: int,
          axes: Axes | None = None) -> AffineMap:
    """The map of a vector `weight` over the components of what `normalize` gives; channel: their axis, 1 or
    -1 (the last ones). axes: how many of the first axes of x can be taken in part; None: the first."""
    shape = getattr(module, weight).shape
    count = shape.numel()

    def split(value: Tensor) -> Rows:  # components first, all positions after
        if channel == 1:
            return value.transpose(0, 1).reshape(count, -1, 1)
        return value.reshape(-1, count).mT.unsqueeze(2)

    def reaching(costate: Tensor, x: Tensor) -> Rows:
        each = torch.eye(count, dtype=costate.dtype, device=costate.device)
        tail = costate.ndim - 2 if channel == 1 else 0
        each = each.view(count, count, *[1] * tail) if channel == 1 else each.view(count, *shape)
        back = vjp(lambda value: normalize(module, value), x)[1]
        spread = costate * each.unsqueeze(1) if channel == 1 else costate * each.view(
            count, *[1] * (costate.ndim - len(shape)), *shape)
        return vmap(back)(spread)[0].flatten(1).mT.unsqueeze(0)

    def fits(x: Tensor, z: Tensor) -> bool:
        if x.shape != z.shape or x.ndim < 2 or not x.is_floating_point():
            return False
        return x.shape[1:2] == shape if channel == 1 else x.shape[-len(shape):] == shape

    return AffineMap(type(module).__name__, weight, bias, lambda x: split(normalize(module, x)),
                     lambda w: w.reshape(-1, 1, 1), lambda matrix: matrix.reshape(shape), split,
                     row_axes=(lambda x: 1) if axes is None else lambda x: axes(module, x), fits=fits,
                     reaching=reaching, joint=True)


def _maps(normalize: Normalize, channel: int, axes: Axes | None = None) -> Callable[[nn.Module],
                                                                                    list[AffineMap]]:
    """Of modules whose weight is named weight, where they have one."""
    return lambda module: [] if getattr(module, "weight", None) is None else [
        scale(module, "weight", bias_of(module), normalize, channel, axes)]


def _before(module: Any, x: Tensor) -> int:
    """The axes before those that are normalized."""
    return x.ndim - len(module.normalized_shape)


def _batch_normalized(module: Any, x: Tensor) -> Tensor:
    if module.training or module.running_mean is None:
        return F.batch_norm(x, None, None, training=True, eps=module.eps)
    return F.batch_norm(x, module.running_mean, module.running_var, eps=module.eps)


def _instance_norm(module: Any) -> list[AffineMap]:
    """Also of one image, without an axis of samples."""

    def batched(arguments: Arguments, named: dict[str, Any], output: Any = None) -> Tensor | None:
        x = first_argument(arguments, named)
        return x.unsqueeze(0) if x is not None and x.ndim == module._get_no_batch_dim() else x

    return [replace(one, inputs=batched) for one in _maps(_instance_normalized, 1)(module)]


def _instance_normalized(module: Any, x: Tensor) -> Tensor:
    if module.training or not module.track_running_stats:
        return F.instance_norm(x, eps=module.eps)
    return F.instance_norm(x, module.running_mean, module.running_var, use_input_stats=False, eps=module.eps)


register(nn.LayerNorm, _maps(lambda m, x: F.layer_norm(x, m.normalized_shape, eps=m.eps), -1, _before))
register(nn.RMSNorm, _maps(lambda m, x: F.rms_norm(x, m.normalized_shape, eps=m.eps), -1, _before))
register(nn.GroupNorm, _maps(lambda m, x: F.group_norm(x, m.num_groups, eps=m.eps), 1))
register(nn.modules.instancenorm._InstanceNorm, _instance_norm)
register(nn.modules.batchnorm._BatchNorm, _maps(_batch_normalized, 1))
