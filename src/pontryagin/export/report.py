"""What packing saves."""

from dataclasses import dataclass

from torch import Tensor

from pontryagin.export.file import PackedState
from pontryagin.export.packed import PackedWeight


@dataclass(frozen=True)
class TensorSize:
    """bits: of a code, None when not packed. before, after: bytes. density: share of entries that are not
    0."""

    name: str
    shape: tuple[int, ...]
    bits: int | None
    before: int
    after: int
    density: float


@dataclass(frozen=True)
class SizeReport:
    """A row for each tensor. Print it."""

    rows: tuple[TensorSize, ...]

    @property
    def before(self) -> int:
        """Bytes of the state dict."""
        return sum(row.before for row in self.rows)

    @property
    def after(self) -> int:
        """Bytes packed, without the file's header."""
        return sum(row.after for row in self.rows)

    def __str__(self) -> str:
        width = max([len(row.name) for row in self.rows] + [6])
        lines = [f"{'tensor':<{width}}  {'shape':>16}  bits  {'bytes':>12}  {'packed':>12}  non-zero"]
        lines += [f"{row.name:<{width}}  {'x'.join(map(str, row.shape)):>16}  {row.bits or '-':>4}  "
                  f"{row.before:>12,}  "
                  f"{row.after:>12,}  {row.density:>8.1%}" for row in self.rows]
        ratio = self.before / self.after if self.after else 1.0
        return "\n".join([*lines, f"{'total':<{width}}  {'':>16}        {self.before:>12,}  "
                                  f"{self.after:>12,}  {ratio:>7.1f}x"])


def size_report(state: PackedState) -> SizeReport:
    """Bytes of every tensor of a packed state (`packed_state`) before and after."""
    return SizeReport(tuple(_row(name, value) for name, value in state.items()))


def _row(name: str, value: PackedWeight | Tensor) -> TensorSize:
    whole = value.weight() if isinstance(value, PackedWeight) else value
    before = whole.numel() * whole.element_size()
    bits, after = (value.bits, value.bytes) if isinstance(value, PackedWeight) else (None, before)
    density = (whole != 0).double().mean().item() if whole.numel() else 0.0
    return TensorSize(name, tuple(whole.shape), bits, before, after, density)
