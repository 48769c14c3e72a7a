"""Small integers in bytes."""

import torch
from jaxtyping import Int8, UInt8
from torch import Tensor

from pontryagin.problem import ProblemError
from pontryagin.problem.admissible.grid import Grid


def bits_of(grid: Grid) -> int:
    """Bits of a packed code: 1, 2, 4 or 8, so that no code crosses a byte."""
    return next(bits for bits in (1, 2, 4, 8) if 2**bits >= len(grid.codes))


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that hold so many codes."""
    return -(-count * bits // 8)


def pack(codes: Int8[Tensor, "*shape"], grid: Grid) -> UInt8[Tensor, " bytes"]:
    """The places of the codes in the grid, code 0 of a byte in its lowest bits, the last byte filled up with
    zeros."""
    bits = bits_of(grid)
    each = 8 // bits
    places = ((codes.flatten().to(torch.int16) + grid.limit) // grid.step).to(torch.uint8)
    whole = torch.zeros(packed_bytes(len(places), bits) * each, dtype=torch.uint8, device=codes.device)
    whole[:len(places)] = places
    packed = torch.zeros(len(whole) // each, dtype=torch.uint8, device=codes.device)
    for place in range(each):
        packed |= whole[place::each] << (bits * place)
    return packed


def unpack(packed: UInt8[Tensor, " bytes"], grid: Grid, count: int) -> Int8[Tensor, " count"]:
    """The codes again. ProblemError when the bytes are too few, too many, or hold what is no code."""
    bits = bits_of(grid)
    if packed.shape != (packed_bytes(count, bits),):
        raise ProblemError(f"expected {packed_bytes(count, bits)} bytes for {count} codes of {bits} bits, "
                           f"found {tuple(packed.shape)}")
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
    places = ((packed.unsqueeze(1) >> shifts) & (2**bits - 1)).flatten()[:count]
    if count and int(places.max()) >= len(grid.codes):
        raise ProblemError(f"packed codes hold {int(places.max())}, expected less than {len(grid.codes)}: "
                           "the bytes are damaged")
    return (places.to(torch.int16) * grid.step - grid.limit).to(torch.int8)
