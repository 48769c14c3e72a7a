"""The affine maps of a module: those of its class, or guesses by names and shapes of its parameters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pontryagin.affine.affine_map import AffineMap, dense, turned
from pontryagin.affine.normalization import Normalize, scale
from pontryagin.affine.registry import Entry, entry_of, is_certain, own_parameters
from pontryagin.errors import ProblemError


@dataclass(frozen=True)
class Candidates:
    """The map that a parameter of a module belongs to, or several that it may be. certain: no look has to
    tell whether it is any of them."""

    maps: tuple[AffineMap, ...]
    certain: bool

    @property
    def weight(self) -> str:
        """The name of the parameter."""
        return self.maps[0].weight


def maps_of(module: nn.Module) -> list[Candidates]:
    """The maps that a module itself computes, or may compute, not those of its children."""
    entry = entry_of(module)
    if entry is None:
        return _guesses(module)
    found = entry.maps(module) if entry.is_built_in else _registered(module, entry)
    if is_certain(module):
        each = [(one,) if isinstance(one, AffineMap) else tuple(one) for one in found]
        return [Candidates(maps, entry.is_built_in or maps[0].outputs is None) for maps in each]
    known = [one for one in found if isinstance(one, AffineMap)]
    if len(known) < len(found):
        return []
    # another normalization?
    if known and known[0].matrix(getattr(module, known[0].weight)).shape[1:] == (1, 1):
        return [Candidates((known[0], *_scales(module, known[0].weight, known[0].bias)), False)]
    return [Candidates((one,), False) for one in known if one.outputs is not None and one.kind != "shift"]


def _registered(module: nn.Module, entry: Entry) -> Sequence[AffineMap | Sequence[AffineMap]]:
    """Of a user's own registration. ProblemError for what are no maps of the module's parameters."""
    kind = type(module).__name__
    try:
        found = list(entry.maps(module))
        each = [one for part in found for one in ([part] if isinstance(part, AffineMap) else part)]
    except (TypeError, AttributeError) as error:
        raise ProblemError(f"affine.register: the maps of {kind} cannot be made ({error}); expected a "
                           "function from a module to a list such as [affine.dense(module, 'weight')]"
                           ) from error
    for one in each:
        if not isinstance(one, AffineMap) or not _fits(module, one):
            named = (one.weight, one.bias) if isinstance(one, AffineMap) else type(one).__name__
            raise ProblemError(f"affine.register: expected maps of a weight of {kind} and of a bias with a "
                               f"number for each of its outputs, found {named}")
    return found


def _fits(module: nn.Module, one: AffineMap) -> bool:
    """Whether weight and bias are tensors of the module that belong together."""
    weight, bias = getattr(module, one.weight, None), getattr(module, one.bias, None) if one.bias else None
    if not isinstance(weight, Tensor) or (one.bias and not isinstance(bias, Tensor)):
        return False
    return bias is None or bias.numel() == one.matrix(weight.detach()).shape[:2].numel()


def certain_maps(module: nn.Module) -> list[AffineMap]:
    """The maps of a module itself as its class says, the first of each that it may be."""
    return [one.maps[0] for one in maps_of(module)] if is_certain(module) else []


def _guesses(module: nn.Module) -> list[Candidates]:
    """A matrix `weight`, or a vector `weight` beside an epsilon, alone or with a vector `bias`."""
    own = own_parameters(module)
    if next(module.children(), None) is not None or not {"weight"} <= own.keys() <= {"weight", "bias"}:
        return []
    bias = "bias" if "bias" in own else None
    if bias is not None and own[bias].ndim != 1:
        return []
    if own["weight"].ndim == 2:
        return _matrices(module, bias)
    same = bias is None or own[bias].shape == own["weight"].shape
    if own["weight"].ndim == 1 and _epsilons(module) and same:
        return [Candidates(_scales(module, "weight", bias), False)]
    return []


def _matrices(module: nn.Module, bias: str | None) -> list[Candidates]:
    shape, length = own_parameters(module)["weight"].shape, None if bias is None else getattr(module,
                                                                                              bias).numel()
    found = [dense(module, "weight", bias)] if length in (None, shape[0]) else []
    found += [turned(module, "weight", bias)] if length in (None, shape[1]) else []
    return [Candidates(tuple(found), False)] if found else []


def _scales(module: nn.Module, weight: str, bias: str | None) -> tuple[AffineMap, ...]:
    """What a vector may scale: rows normalized by root mean square or standard deviation, channels last or
    first."""
    if getattr(module, weight).ndim > 1:
        return ()
    return tuple(scale(module, weight, bias, *normalized) for normalized in _NORMALIZED)


def _epsilons(module: nn.Module) -> list[float]:
    """What a normalization adds to a variance, under the names that are in use."""
    names = ("eps", "variance_epsilon", "epsilon", "layer_norm_eps", "norm_eps")
    return [float(value) for value in map(vars(module).get, names) if isinstance(value, int | float)]


def _eps(module: Any) -> float:
    return next(iter(_epsilons(module)), 1e-6)


def _last(module: Any, x: Tensor) -> int:
    return x.ndim - 1


def _channels_last(normalize: Normalize) -> Normalize:
    return lambda module, x: normalize(module, x.movedim(1, -1)).movedim(-1, 1)


def _root_mean_square(module: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=_eps(module))


def _standardized(module: Any, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=_eps(module))


_NORMALIZED: tuple[tuple[Normalize, int, Callable[[Any, Tensor], int] | None], ...] = (
    (_root_mean_square, -1, _last), (_standardized, -1, _last),
    (_channels_last(_standardized), 1, None), (_channels_last(_root_mean_square), 1, None))
