"""Models that compute with packed weights."""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pontryagin.export.file import PackedState
from pontryagin.export.packed import Packed, PackedWeight, fitting_rows, packed_weight
from pontryagin.problem import ProblemError
from pontryagin.problem.admissible import Binary, Codebook, DiscreteSet, Ternary

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Those with arithmetic: 8-bit floating point has none."""


def detected_sets(state: Mapping[str, Tensor]) -> dict[str, DiscreteSet]:
    """Of a state dict, by name: for each tensor of floating-point numbers with two axes or more, the least of
    Binary, Ternary and Codebook of 4 and 8 bits, with a scale per row, in which it lies, if it becomes
    smaller.

    Rows are outputs of the layer: of a transposed convolution too (packed.fitting_rows).
    """
    found: dict[str, DiscreteSet] = {}
    for name, value in state.items():
        if value.ndim < 2 or value.dtype not in _DTYPES or not value.numel():
            continue
        for one in (Binary(scale="row"), Ternary(scale="row"), Codebook(4), Codebook(8)):
            if rows := fitting_rows(value, one):
                if packed_weight(value, one, rows).bytes < value.numel() * value.element_size():
                    found[name] = one
                break
    return found


def with_packed_weights(model: nn.Module, state: PackedState) -> nn.Module:
    """The model in evaluation mode with the values of a packed state; modules whose weights are packed
    compute with these, and outputs are those of the whole weights, bit by bit.

    Args:
        model: one whose state dict has these names and shapes. It is changed and returned, or, where its own
            weight is packed, what stands for it.
        state: of `packed_state` or `load_packed`.

    Raises:
        ProblemError: names or shapes are not those of the model.
    """
    own = model.state_dict()
    if own.keys() != state.keys():
        raise ProblemError(f"expected tensors {', '.join(own)}, found {', '.join(state)}: is it another "
                           "model?")
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise ProblemError(f"{name}: expected shape {tuple(own[name].shape)}, found "
                               f"{tuple(value.shape)}: is it another model?")
    by_module: dict[str, dict[str, PackedWeight]] = defaultdict(dict)
    for name, value in state.items():
        if isinstance(value, PackedWeight):
            place, _, parameter = name.rpartition(".")
            by_module[place][parameter] = value
    model.load_state_dict({name: value for name, value in state.items() if isinstance(value, Tensor)},
                          strict=False)
    made: dict[nn.Module, Packed] = {}
    for place, weights in by_module.items():
        module = model.get_submodule(place)
        # one module may stand at several places
        packed = made[module] = made.get(module) or Packed(module, weights)
        if not place:
            return packed.eval()
        parent, _, child = place.rpartition(".")
        model.get_submodule(parent).register_module(child, packed)
    return model.eval()
