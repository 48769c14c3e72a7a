"""Loops over the numbers of a step on the CPU, compiled by numba where it is installed (the extra `fast`).

A step of small stages is some twenty calls that take longer than their arithmetic, and one of wide stages
as many passes over memory. Here each pass is one loop, and the arithmetic of lengths one call: the same
formulas as elsewhere, compiled from the same source. Sums are in float64, so that no square leaves their
range. Loops go over views of rows, whose indices begin at 0, so that the compiler knows them for none from
the end, and takes many at a time. Without numba, on other devices and in half precision the calls are
torch's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from inspect import unwrap
from logging import getLogger
from threading import Timer
from types import FunctionType
from typing import Any
from warnings import warn

import numpy as np
import torch
from jaxtyping import Float

Rows = Float[np.ndarray, "group output column"]
Sums = Float[np.ndarray, "sum group output"]
_PLAIN = torch.Tensor, torch.nn.Parameter
"""Others may have no memory of their own."""
_LONG = 2.0
"""Seconds that pass before it is said that something is compiled; reading what has been takes a tenth."""
_SUMS = {"reassoc", "contract", "nsz"}  # NaN and infinity stay what they are


@cache
def compiler() -> Any:
    """numba, which takes a tenth of a second to import; None where it is not installed, or told not to
    compile."""
    if find_spec("numba") is None:
        return None
    try:
        numba: Any = import_module("numba")
    except ImportError as error:  # numba asks for certain versions of numpy
        warn(f"EMSA: numba is installed, but cannot be imported ({error}): steps are not compiled",
             stacklevel=2)
        return None
    return None if numba.config.DISABLE_JIT else numba


def fits(like: torch.Tensor) -> bool:
    """Whether the step of a tensor of this kind is compiled."""
    return like.is_cpu and like.dtype in (torch.float32, torch.float64) and compiler() is not None


def is_own_memory(value: torch.Tensor) -> bool:
    """Whether the numbers of a tensor on the CPU lie one after the other at its address."""
    return (type(value) is torch.Tensor and value.layout is torch.strided and value.is_contiguous()
            and not value.is_neg())


def places_of(values: Iterable[torch.Tensor]) -> list[tuple[int, int]]:
    """Address and size of each, which are others when a tensor gets new memory."""
    return [(value.data_ptr(), value.numel()) for value in values]


@contextmanager
def _announced() -> Iterator[None]:
    """Say so where what is done inside takes long."""
    timer = Timer(_LONG, _announce)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@cache
def _announce() -> None:
    getLogger("pontryagin").warning(
        "EMSA: the first step compiles its loops, once on this machine: some fifteen seconds")


class Compiled:
    """A function that is compiled at its first call, and kept on disk where that can be; without numba the
    function itself. names: globals of the function that others take the place of, where it is compiled; or
    what gives them then."""

    def __init__(self, function: Callable[..., Any], names: "Names | None" = None) -> None:
        self.plain: Any = unwrap(function)
        self._names: Names = names or {}
        self._is_ready = False

    def __call__(self, *arguments: Any) -> Any:
        if self._is_ready:
            return self.dispatcher(*arguments)
        with _announced():
            found = self.dispatcher(*arguments)
        self._is_ready = True
        return found

    @property
    def direct(self) -> Callable[..., Any]:
        """For many calls: without a look at whether it has been compiled, once it has."""
        return self.dispatcher if self._is_ready else self

    @cached_property
    def dispatcher(self) -> Any:
        """What numba makes of it."""
        numba, plain = compiler(), self.plain
        if numba is None:
            return plain
        given = self._names if isinstance(self._names, Mapping) else self._names()
        used = {name: value.dispatcher if isinstance(value, Compiled) else value
                for name, value in given.items() if name in plain.__code__.co_names}
        own = FunctionType(plain.__code__, {**plain.__globals__, **used}, plain.__name__, plain.__defaults__)
        # what is kept is found by this name, and numba looks at this file alone whether it is of today
        own.__qualname__ = f"{own.__name__}_{_digest(own, used)}"
        options = {"nogil": True, "error_model": "numpy", "fastmath": _SUMS}
        try:
            return numba.njit(cache=True, **options)(own)
        except RuntimeError:  # no folder for it can be written
            return numba.njit(**options)(own)


Names = Mapping[str, Any] | Callable[[], Mapping[str, Any]]


def compiled(function: Callable[..., Any]) -> Compiled:
    """Without names."""
    return Compiled(function)


def _digest(function: FunctionType, names: Mapping[str, Any]) -> str:
    """Of its code, and of all that it may call."""
    code = function.__code__
    parts = [code.co_code.hex(), repr(code.co_consts), repr(code.co_names), repr(function.__defaults__)]
    used = {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    parts += [f"{name} {value!r}" for name, value in used.items() if isinstance(value, int | float | tuple)]
    parts += [each.py_func.__qualname__ for name, each in sorted(names.items()) if hasattr(each, "py_func")]
    return sha256(" ".join(parts).encode()).hexdigest()[:16]


def at(values: Any, place: int) -> Any:
    """One of the numbers of an array, or a single number."""
    return values.flat[place] if isinstance(values, np.ndarray) else values


@cache
def element() -> dict[str, Any]:
    """`at` for compiled functions."""
    numba = compiler()
    from numba.extending import overload

    overload(at)(lambda values, place: (lambda values, place: values.flat[place])
                 if isinstance(values, numba.types.Array) else (lambda values, place: values))
    return {"at": at}


def pointers() -> dict[str, Any]:
    """Addresses as pointers to numbers of the kind that an array has."""
    numba = compiler()
    from numba.extending import intrinsic

    @intrinsic
    def pointer(typing: Any, address: Any, like: Any) -> Any:
        def cast(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))
        return numba.types.CPointer(like.dtype)(address, like), cast
    return {"_pointer": pointer, "_array": numba.carray}


_pointer: Any = None
_array: Any = None


def _norms(addresses: np.ndarray, sizes: np.ndarray, like: np.ndarray, found: np.ndarray) -> None:
    for n in range(len(sizes)):
        values, square = _array(_pointer(addresses[n], like), sizes[n]), 0.0
        for i in range(sizes[n]):
            square += np.float64(values[i]) * np.float64(values[i])
        found[n] = np.sqrt(square)


_NORMS = Compiled(_norms, pointers)


def norms_at(addresses: np.ndarray, sizes: np.ndarray, like: np.ndarray) -> np.ndarray:
    """As `norms`, by addresses. like: an array of their kind."""
    found = np.empty(len(sizes))
    _NORMS(addresses, sizes, like, found)
    return found


def norms(tensors: Sequence[torch.Tensor]) -> list[float] | None:
    """The square root of the sum of all squares of each; None where that is not compiled."""
    kind = tensors[0].dtype if tensors else None
    if not (tensors and fits(tensors[0]) and all(
            type(one) in _PLAIN and one.dtype is kind and one.is_cpu and one.layout is torch.strided
            and one.is_contiguous() for one in tensors)):
        return None
    found = np.empty(len(tensors))
    _NORMS(np.array([one.data_ptr() for one in tensors]), np.array([one.numel() for one in tensors]),
           np.zeros(0, np.float64 if kind is torch.float64 else np.float32), found)
    return found.tolist()


def _mild_norms(addresses: np.ndarray, sizes: np.ndarray, like: np.ndarray, least: float, most: float,
                found: np.ndarray) -> bool:
    _norms(addresses, sizes, like, found)
    mild = True
    for n in range(len(sizes)):
        mild = mild and least * np.sqrt(float(sizes[n])) < found[n] < most
    return mild


mild_norms = Compiled(_mild_norms, {"_norms": _NORMS})
"""Whether all norms, by addresses, lie between two bounds, the least for each of so many entries. like: an
array of their kind."""


def _gathered(addresses: np.ndarray, places: np.ndarray, rows: Rows) -> None:
    for n in range(len(places)):
        tensor, first, group, outputs, column, columns = places[n]
        values = _array(_pointer(addresses[tensor], rows), first + outputs * columns)
        for i in range(outputs):
            start = first + i * columns
            given, row = values[start:start + columns], rows[group, i, column:column + columns]
            for j in range(columns):
                row[j] = given[j]


gathered = Compiled(_gathered, pointers)
"""Rows of a pack from tensors, by addresses. places: of each part of a tensor its number, where in it the
part begins, then its matrix, how many rows, from which column on, how many columns."""


def _placed(addresses: np.ndarray, places: np.ndarray, rows: Rows, factor: float) -> None:
    own = rows.dtype.type(factor)
    for n in range(len(places)):
        tensor, first, group, outputs, column, columns = places[n]
        values = _array(_pointer(addresses[tensor], rows), first + outputs * columns)
        for i in range(outputs):
            start = first + i * columns
            control, row = values[start:start + columns], rows[group, i, column:column + columns]
            for j in range(columns):
                control[j] += own * row[j]


placed = Compiled(_placed, pointers)
"""Tensors plus a factor times rows of a pack, likewise."""


@compiled
def centred(gradient: Rows, mean: Rows, right: Rows, own: Float[np.ndarray, "group output"]) -> None:
    """right = (G - g s^T, g), and the length of each of its rows. mean: (s, 0), (group, 1, column)."""
    groups, outputs, columns = gradient.shape
    for k in range(groups):
        away = mean[k, 0]
        for i in range(outputs):
            given, row, square = gradient[k, i], right[k, i], 0.0
            g = given[columns - 1]
            for j in range(columns):
                value = given[j] - g * away[j]
                row[j] = value
                square += np.float64(value) * np.float64(value)
            own[k, i] = np.sqrt(square)


@compiled
def measured(right: Rows, change: Rows, outside: Rows, inputs: int, sums: Sums) -> None:
    """Of each row |Y|^2, |dW|^2, <Y, dW> over its inputs, and what Y has beside them, squared, and d has.
    outside: what of Y is added to the change before, (group, 1, column); of no groups for nothing."""
    groups, outputs, columns = right.shape
    for k in range(groups):
        for i in range(outputs):
            y, d = right[k, i], change[k, i]
            if len(outside):
                part = outside[k, 0]
                for j in range(columns):
                    d[j] += part[j] * y[j]
            whole, norm, product = 0.0, 0.0, 0.0
            for j in range(inputs):
                one, other = np.float64(y[j]), np.float64(d[j])
                whole += one * one
                norm += other * other
                product += one * other
            last, beside = 0.0, 0.0
            for j in range(inputs, columns):
                last += np.float64(y[j]) * np.float64(y[j])
                beside += np.float64(d[j])
            sums[0, k, i], sums[1, k, i], sums[2, k, i] = whole + last, norm, product
            sums[3, k, i], sums[4, k, i] = last, beside


def _begun(addresses: np.ndarray, places: np.ndarray, mean: Rows, right: Rows,
           own: Float[np.ndarray, "group output"]) -> None:
    last = right.shape[2] - 1
    for n in range(len(places)):
        tensor, first, group, outputs, column, columns = places[n]
        if column == last:
            values = _array(_pointer(addresses[tensor], right), first + outputs)
            for i in range(outputs):
                right[group, i, last] = values[first + i]
    for n in range(len(places)):
        tensor, first, group, outputs, column, columns = places[n]
        if column < last:
            values = _array(_pointer(addresses[tensor], right), first + outputs * columns)
            away = mean[group, 0]
            for i in range(outputs):
                start = first + i * columns
                given, row = values[start:start + columns], right[group, i]
                g = row[last]
                square = np.float64(g) * np.float64(g)
                for j in range(columns):
                    value = given[j] - g * away[j]
                    row[j] = value
                    square += np.float64(value) * np.float64(value)
                own[group, i] = np.sqrt(square)


begun = Compiled(_begun, pointers)
"""What `centred` gives of what `gathered` does, but for what is padded, in one pass over memory."""


@compiled
def scaled(change: Rows, scale: Float[np.ndarray, "group output"]) -> None:
    """d <- scale d, row by row."""
    groups, outputs, columns = change.shape
    for k in range(groups):
        for i in range(outputs):
            factor, row = scale[k, i], change[k, i]
            for j in range(columns):
                row[j] *= factor


@compiled
def promised(change: Rows, scale: Float[np.ndarray, "group output"], gradient: Rows, mean: Rows,
             velocity: Rows, sums: Float[np.ndarray, "sum group"]) -> None:
    """d <- scale d, row by row, and of each group <G, d> and <G, v>. mean: as that of `centred` where the
    gradient is its right, else of no groups."""
    groups, outputs, columns = change.shape
    for k in range(groups):
        new, past = 0.0, 0.0
        for i in range(outputs):
            factor, row, given, before = scale[k, i], change[k, i], gradient[k, i], velocity[k, i]
            if len(mean):
                away, last = mean[k, 0], given[columns - 1]
                for j in range(columns):
                    step, g = row[j] * factor, np.float64(given[j] + last * away[j])
                    row[j] = step
                    new += g * np.float64(step)
                    past += g * np.float64(before[j])
            else:
                for j in range(columns):
                    step, g = row[j] * factor, np.float64(given[j])
                    row[j] = step
                    new += g * np.float64(step)
                    past += g * np.float64(before[j])
        sums[0, k], sums[1, k] = new, past


@compiled
def nesterov(velocity: Rows, change: Rows, kept: Float[np.ndarray, "1"]) -> None:
    """v <- m v + (1 - m) d; d <- m v + (1 - m) d with the new v. kept: m, in their precision."""
    groups, outputs, columns = change.shape
    m = kept[0]
    for k in range(groups):
        for i in range(outputs):
            step, before = change[k, i], velocity[k, i]
            for j in range(columns):
                own = step[j]
                mean = own + m * (before[j] - own)
                before[j] = mean
                step[j] = own + m * (mean - own)


def _nesterov_placed(addresses: np.ndarray, places: np.ndarray, velocity: Rows, change: Rows,
                     kept: Float[np.ndarray, "1"], factor: float) -> None:
    length, m = change.dtype.type(factor), kept[0]
    for n in range(len(places)):
        tensor, first, group, outputs, column, columns = places[n]
        values = _array(_pointer(addresses[tensor], change), first + outputs * columns)
        for i in range(outputs):
            start, end = first + i * columns, column + columns
            control, step, before = (values[start:start + columns], change[group, i, column:end],
                                     velocity[group, i, column:end])
            for j in range(columns):
                own = step[j]
                mean = own + m * (before[j] - own)
                before[j] = mean
                control[j] += length * (own + m * (mean - own))


nesterov_placed = Compiled(_nesterov_placed, pointers)
"""`nesterov`, and then `placed`, of what is not padded, in one pass over memory; d stays as it is."""


@compiled
def averaged(gradient: Rows, velocity: Rows, ahead: Rows, kept: float, weights: Float[np.ndarray, " group"],
             squares: Float[np.ndarray, "2 place"], units: Float[np.ndarray, " group"]) -> None:
    """ahead = (w v + (1 - m) G) / unit with v = m v + (1 - m) G, which stays as it is, and of each row |G|^2
    and |unit ahead|^2. kept: m; weights: w. units: 1 of mild numbers, else about the largest of them."""
    groups, outputs, columns = gradient.shape
    kind = gradient.dtype.type
    new = kind(1.0 - kept)
    for k in range(groups):
        w, largest = kind(weights[k]), 0.0
        for i in range(outputs):
            given, before, row = gradient[k, i], velocity[k, i], ahead[k, i]
            own, whole = 0.0, 0.0
            for j in range(columns):
                g = given[j]
                a = w * (before[j] + new * (g - before[j])) + new * g
                row[j] = a
                own += np.float64(g) * np.float64(g)
                whole += np.float64(a) * np.float64(a)
            squares[0, k * outputs + i], squares[1, k * outputs + i] = own, whole
            largest = max(largest, whole)
        units[k] = 1.0
        if largest > 0 and not 1e-20 < largest < 1e20:
            units[k] = np.sqrt(largest)
            for i in range(outputs):
                for j in range(columns):
                    ahead[k, i, j] = kind(np.float64(ahead[k, i, j]) / units[k])


@compiled
def row_squares(rows: Rows, inputs: int, found: Float[np.ndarray, "group output"]) -> None:
    """|.|^2 of the first numbers of each row."""
    groups, outputs, _ = rows.shape
    for k in range(groups):
        for i in range(outputs):
            row, square = rows[k, i], 0.0
            for j in range(inputs):
                square += np.float64(row[j]) * np.float64(row[j])
            found[k, i] = square


@compiled
def weighted_squares(rows: Rows, worth: Float[np.ndarray, "group place"],
                     found: Float[np.ndarray, "group output"]) -> None:
    """Of the first numbers of each row the squares, each times what it is worth."""
    groups, outputs, _ = rows.shape
    for k in range(groups):
        of_each = worth[k]
        for i in range(outputs):
            row, square = rows[k, i], 0.0
            for j in range(len(of_each)):
                square += of_each[j] * (np.float64(row[j]) * np.float64(row[j]))
            found[k, i] = square


@compiled
def moved(velocity: Rows, gradient: Rows, kept: float) -> None:
    """v <- m v + (1 - m) G."""
    groups, outputs, columns = gradient.shape
    new = gradient.dtype.type(1.0 - kept)
    for k in range(groups):
        for i in range(outputs):
            row, given = velocity[k, i], gradient[k, i]
            for j in range(columns):
                row[j] += new * (given[j] - row[j])
