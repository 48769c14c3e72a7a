"""What one affine stage sees of a batch: the moments of exactly those rows whose gradient is in .grad.

The inputs of a call wait, a few rows of them, until the costate of its output arrives in a backward pass, and
count when that pass adds the gradient of the weight to .grad. So passes that only derive (to inputs, a
Hessian product, a critic seen by its generator's loss) leave nothing, and what was dropped with .grad (by
zero_grad of anyone, by p.grad = None) is dropped here too.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.affine import AffineMap, is_certain, own_parameters
from pontryagin.affine.moments import IndexMoments, InputMoments, Moments
from pontryagin.affine.precision import full_precision, wide
from pontryagin.affine.rows import thinned
from pontryagin.affine.variances import VarianceProbe
from pontryagin.trajectory.local import is_spread, local_part, whole
from pontryagin.trajectory.recomputation import hooked, is_checkpointed

_LEAST, _PROBE = 8, 4
"""Samples that enter the moments at least where a sample has many rows, and what part of the rows is enough
for a probe."""
_CHUNK = 1 << 12
"""Rows of which u x^T is taken at a time."""
_EQUAL = 0.02
"""How far sum u x^T may be from the gradient, relative to it; further only by roundings."""


class CapturedStage:
    """An affine stage of a module: its map, its parameters, and the moments of its inputs.

    armed: whether to take the moments of inputs; probing: whether at least their mean and variance. seen:
    whether any have come.
    rows: so many rows of a call enter the moments. certain: False where it has to be verified that sum u x^T
    is the gradient.
    tied: whether another map uses the weight too. gradient_check, when set, also lists u x^T and u of every
    call, summed over its
    positions with u the gradient at z: together exactly the gradients of W and b.
    """

    def __init__(self, name: str, module: nn.Module, map: AffineMap, rows: int | None = None,
                 certain: bool = True) -> None:
        self.name, self.module, self.map, self.rows, self.certain = name, module, map, rows, certain
        self.weight: nn.Parameter = getattr(module, map.weight)
        self.bias: nn.Parameter | None = getattr(module, map.bias) if map.bias else None
        self.moments = IndexMoments(self.weight.shape[0],
                                    wide(self.weight.dtype)) if map.one_hot else InputMoments()
        self.armed = self.probing = self.seen = self.tied = False
        self.probe = VarianceProbe()
        self.calls = self.positions = 0
        """Of the last batch, and the rows of all its calls: the stage's share of the work."""
        self.rows_of_sample = 1.0
        """In a call of the last batch."""
        self.gradient_check: list[tuple[Tensor, Tensor]] | None = None
        self._waiting = _Pass()
        self._derived = _Pass()
        self._handles: list[Any] = []
        self._last: tuple[int, int] | None = None
        self._verified: list[tuple[Tensor, Tensor]] = []
        self._misfits = self.called = False
        self.are_data = True
        """Whether nothing that is differentiated made the inputs."""
        self._slots: list[_Slot] = []
        self._batch = 0
        self._me = weakref.ref(self)
        self._before, self._after, self._before_bias = (_telling(self._me, told) for told in (
            CapturedStage._accumulated, CapturedStage._added, CapturedStage._of_bias))

    @property
    def is_looking(self) -> bool:
        """Whether inputs are of use now."""
        return (self.armed or self.probing) and self.weight.requires_grad

    @property
    def is_own(self) -> bool:
        """Whether the module's parameter still is this weight, and not one that has been put in its place."""
        found = vars(self.module).get("_parameters")
        return (found if isinstance(found, dict)
                else own_parameters(self.module)).get(self.map.weight) is self.weight

    def look(self, armed: bool, probing: bool) -> None:
        """Whether to take moments of the next batch, or to probe it; what was seen of another is
        dropped."""
        if self.armed or self.probing:
            self.forget()
            self.stop()
        self.armed, self.probing, self.seen, self.called = armed, probing and not armed, False, False
        self.are_data = True

    def stop(self) -> None:
        """Let go of the weight."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _present(self, name: str | None, parameter: nn.Parameter) -> nn.Parameter:
        """What the module computes with: fully_shard puts a whole one in the place of a parameter for the
        length of a pass."""
        found = getattr(self.module, name) if name is not None and is_spread(parameter) else parameter
        return found if isinstance(found, nn.Parameter) else parameter

    @property
    def _gradient(self) -> Tensor | None:
        """What .grad has, or will have with those that fully_shard has not reduced yet."""
        grad = self.weight.grad
        if grad is None:
            return self._present(self.map.weight, self.weight).grad if is_spread(self.weight) else None
        return local_part(grad)

    def watch(self, x: Any, output: Tensor, own: bool = True) -> None:
        """A call: its inputs, of which some rows are kept until the costate of its output arrives. own: of
        the module whose bias is the stage's, and not of another that is tied to its weight alone."""
        self._attend()
        self._certify()
        self.called = True
        self.are_data &= isinstance(x, Tensor) and not x.requires_grad
        if is_checkpointed() and self.gradient_check is None:  # they come again when they are computed again
            if not self.certain and self.armed:
                self._expect(output, own)
            return
        if not isinstance(x, Tensor) or (not self.certain and not self.map.fits(x, output)):
            self._misfits |= not self.certain
            return
        x = whole(x.detach())
        sample = self._sample(x, self._thinned(x))
        if sample.rows is x and (torch.is_autocast_enabled(x.device.type) or hooked()):
            sample.rows = x.clone()  # autograd keeps another tensor, and x may be changed in place
        me, held = self._me, [_Held(sample, x if self._needs_all else sample.rows, own)]
        del x, sample

        def arrive(costate: Tensor) -> None:
            stage = me()
            if stage is None or not held:  # a second backward pass through the same graph
                return
            kept = held[0]
            if not _is_graph_kept():  # the graph may live on, its inputs need not
                held.clear()
            if kept.is_as_it_was:
                stage._arrived(kept, costate)

        output.register_hook(arrive)

    def _expect(self, output: Tensor, own: bool) -> None:
        """The costate of a call whose inputs come later."""
        me, slot = self._me, _Slot(output.shape, own)
        self._slots.append(slot)

        def arrive(costate: Tensor) -> None:
            stage = me()
            if stage is not None and slot in stage._slots:
                slot.costate = costate.detach()
                stage._match(slot)

        output.register_hook(arrive)

    def _match(self, slot: "_Slot") -> None:
        """Of a call inside a checkpointed part inputs or costate come first; with both, u x^T is known."""
        if slot.inputs is None or slot.costate is None:
            return
        self._slots.remove(slot)
        if not self.map.fits(slot.inputs, torch.empty(slot.shape, device="meta")):
            self._misfits = True
            return
        with full_precision(slot.costate.device):
            self._count_product(slot.inputs, slot.costate, slot.own)

    def recomputed(self, x: Tensor | None) -> None:
        """The inputs of a call inside a checkpointed part, computed again in the backward pass."""
        self._certify()
        if x is None or self.gradient_check is not None:
            return
        if not self.certain and self.armed:
            empty = [slot for slot in self._slots if slot.inputs is None]
            if len(empty) != 1:  # which call it belongs to cannot be told
                return
            empty[0].inputs = x.detach()
            self._match(empty[0])
        if self.certain or not self._misfits:
            self._waiting.add(self._sample(x, self._thinned(x.detach()).clone()))

    def _certify(self) -> None:
        """A module may have got another forward since it was found."""
        self.certain = self.certain and is_certain(self.module)

    def take(self) -> Moments | None:
        """The moments of the batch; the next call belongs to another one."""
        return self.moments.take()

    def forget(self) -> None:
        """Drop what has been seen of a batch."""
        self._waiting, self._derived, self._last = _Pass(), _Pass(), None
        self._verified, self._misfits, self._slots = [], False, []
        self._drop()

    def _drop(self) -> None:
        self.moments.take()
        self.probe.take()
        self.seen = False
        self._batch += 1

    def verdict(self) -> bool | None:
        """Whether sum u x^T was the gradient in all passes since the look began; False too where inputs or
        outputs had not the shapes of this map, or costates could not be told; None where there was no
        call."""
        found = [bool(off <= allowed)
                 for off, allowed in self._verified if off.isfinite() and allowed.isfinite()]
        return False if self._misfits else all(found) if found else None

    @property
    def _needs_all(self) -> bool:
        return self.gradient_check is not None or (self.armed and not self.certain)

    def _thinned(self, x: Tensor) -> Tensor:
        """Some of the rows, along one axis."""
        axes = self.map.row_axes(x)
        if self.rows is None or axes == 0 or not x.numel() or self.map.one_hot:
            return x
        rows = x.flatten(0, axes - 1) if axes > 1 else x
        wanted = self.rows if self.armed else max(self.rows // _PROBE, 1)
        each = self._rows_of_each(rows)
        return thinned(rows, max(wanted // each, _LEAST if self.armed or each == 1 else _LEAST // _PROBE))

    def _sample(self, inputs: Tensor, rows: Tensor) -> "_Sample":
        has_many = inputs.ndim > (1 if self.map.one_hot else 2)
        return _Sample(rows, inputs.numel() / max(rows.numel(), 1), len(inputs) if has_many else None)

    def _rows_of_each(self, x: Tensor) -> int:
        """Rows x that one entry along the first axis becomes."""
        if self.weight.ndim == 2 or x.ndim < 3:
            return 1
        if self.weight.ndim == 1:
            return max(x[0].numel() // self.weight.numel(), 1)
        return max(x[0, 0].numel() // _strides(self.module), 1)

    def _arrived(self, held: "_Held", costate: Tensor) -> None:
        self._waiting.add(held.sample)
        if torch.is_grad_enabled():  # a derivative inside the loss: a weight may be reached through it alone
            self._derived.add(held.sample)
        if self._needs_all:
            with full_precision(costate.device):
                self._count_product(held.inputs, costate.detach(), held.own)

    def _count_product(self, x: Tensor, costate: Tensor, own: bool) -> None:
        if self.map.outputs is None or costate.is_nested:
            return
        product, total = _gradients(self, x, costate)
        if self.gradient_check is not None:
            self.gradient_check.append((product, total))
        if not self.certain:
            self._waiting.begin()
            self._waiting.products.append((product, total if own else torch.zeros_like(total),
                                           _rounding(x, costate)))

    def _attend(self) -> None:
        """Be told before and after a gradient is added to that of the weight, from the first call of the look
        on."""
        if self._handles:
            return
        node = _adding(self._present(self.map.weight, self.weight))
        self._handles += [node.register_prehook(self._before), node.register_hook(self._after), _Kept(node)]
        if self.bias is not None and self.bias.requires_grad and not self.certain:
            node = _adding(self._present(self.map.bias, self.bias))
            self._handles += [node.register_prehook(self._before_bias), _Kept(node)]

    def _accumulated(self, gradient: Tensor | None) -> None:
        grad = self._gradient
        # a part may be 0 by itself, so of a weight that lies in parts None alone is a new batch
        if grad is None or (self._last is not None and self._last != (id(grad), grad._version)
                            and not is_spread(self.weight) and not grad.any()):
            self._drop()
        number = torch._C._current_graph_task_id()
        samples = self._waiting if self._waiting.number == number else self._derived
        if gradient is not None and samples.products and samples is self._waiting and not gradient.is_sparse:
            self._verify(self.map.matrix(gradient.detach()), samples, 0)
        for sample in samples.samples:
            if sample.batch != self._batch:  # else a second pass through the same call
                sample.batch = self._batch
                self._commit(sample)
        samples.samples, self._derived = [], _Pass()

    def _of_bias(self, gradient: Tensor | None) -> None:
        waiting = self._waiting
        if gradient is not None and waiting.number == torch._C._current_graph_task_id() and waiting.products:
            if gradient.numel() != waiting.products[0][1].numel():
                self._misfits = True
                return
            self._verify(gradient.detach().reshape(waiting.products[0][1].shape), waiting, 1)

    def _added(self, _: Tensor | None) -> None:
        grad = self._gradient
        self._last = None if grad is None else (id(grad), grad._version)

    def _verify(self, gradient: Tensor, samples: "_Pass", which: int) -> None:
        """Of numbers of any size: all are divided by the largest; where all are 0 nothing is told."""
        parts = torch.stack([product if which == 0 else total for product, total, _ in samples.products])
        if parts.shape[1:] != gradient.shape:
            self._misfits = True
            return
        gradient = gradient.to(parts.dtype)
        largest = torch.maximum(parts.abs().amax(), gradient.abs().amax())
        parts, gradient = parts / largest, gradient / largest  # NaN, which tells nothing, for 0 / 0
        rounding = max(each for _, _, each in samples.products)
        size = torch.linalg.vector_norm(parts.flatten(1), dim=1).sum()
        self._verified.append((torch.linalg.vector_norm(parts.sum(0) - gradient),
                               _EQUAL * torch.linalg.vector_norm(gradient) + rounding * size))

    def _commit(self, sample: "_Sample") -> None:
        with full_precision(sample.rows.device):
            rows = self.map.rows(sample.rows)
            if not self.armed:
                self.probe.add(rows)
                return
            if not self.seen:
                self.calls = self.positions = 0
            self.seen = True
            positions = rows.shape[1] * sample.share
            self.rows_of_sample = positions / sample.samples if sample.samples else 1.0
            self.calls, self.positions = self.calls + 1, self.positions + round(positions)
            self.moments.add(rows)


class _Sample:
    """Some rows of the inputs of a call. share: how many rows the call has for each of them; samples: of the
    call, None where each is one row; batch: the last that they entered."""

    __slots__ = "batch", "rows", "samples", "share"

    def __init__(self, rows: Tensor, share: float, samples: int | None) -> None:
        self.rows, self.share, self.samples, self.batch = rows, share, samples, -1


class _Held:
    """What is kept of a call until its costate arrives."""

    __slots__ = "_version", "inputs", "own", "sample"

    def __init__(self, sample: _Sample, inputs: Tensor, own: bool) -> None:
        self.sample, self.inputs, self.own, self._version = sample, inputs, own, inputs._version

    @property
    def is_as_it_was(self) -> bool:
        return self.inputs._version == self._version


class _Slot:
    """A call inside a checkpointed part: the shape of its output, and what has come of it."""

    def __init__(self, shape: torch.Size, own: bool) -> None:
        self.shape, self.own = shape, own
        self.inputs: Tensor | None = None
        self.costate: Tensor | None = None


class _Pass:
    """What has arrived in one backward pass."""

    __slots__ = "number", "products", "samples"

    def __init__(self) -> None:
        self.number = -1
        self.samples: list[_Sample] = []
        self.products: list[tuple[Tensor, Tensor, float]] = []

    def add(self, sample: _Sample) -> None:
        self.begin()
        self.samples.append(sample)

    def begin(self) -> None:
        """Start anew in another pass."""
        number = torch._C._current_graph_task_id()
        if number != self.number:
            self.__init__()  # type: ignore[misc]
            self.number = number


class _Kept:
    """Holds a node of the graph whose hooks are to be called, in the place of a handle."""

    def __init__(self, node: Any) -> None:
        self.node = node

    def remove(self) -> None:
        self.node = None


def _adding(parameter: nn.Parameter) -> Any:
    """What adds gradients to that of a parameter."""
    return parameter.expand_as(parameter).grad_fn.next_functions[0][0]  # type: ignore[union-attr]


def _telling(me: "weakref.ref[CapturedStage]", told: Callable[[CapturedStage, Tensor | None], None]
             ) -> Callable[..., None]:
    def tell(*gradients: Any) -> None:
        if (found := me()) is not None:
            last = gradients[-1]
            told(found, last[0] if last else None)

    return tell


def _is_graph_kept() -> bool:
    return torch.is_grad_enabled() or torch._C._autograd._get_current_graph_task_keep_graph()


def _strides(module: Any) -> int:
    """Input positions to an output position."""
    if getattr(module, "transposed", True):
        return 1
    product = 1
    for stride in module.stride:
        product *= stride
    return product


def _rounding(x: Tensor, costate: Tensor) -> float:
    """What rounding may add to the difference, relative to the sum's parts: more where a layer has run in
    half precision."""
    dtypes = [each.dtype for each in (x, costate) if each.is_floating_point()]
    return 8 * max(torch.finfo(dtype).eps for dtype in dtypes)


def _gradients(stage: CapturedStage, inputs: Tensor, costate: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of u x^T and u over the positions of a call, some samples at a time."""
    if inputs.ndim < 2 or costate.ndim < 2 or len(inputs) != len(costate) or stage.map.row_axes(inputs) == 0:
        return _product(stage, inputs, costate)
    each = max(_CHUNK * len(inputs) // max(costate.numel() // stage.weight.shape[0], 1), 1)
    parts = [_product(stage, *both) for both in zip(inputs.split(each), costate.split(each), strict=True)]
    return sum((part[0] for part in parts[1:]), parts[0][0]), sum((part[1] for part in parts[1:]),
                                                                  parts[0][1])


def _product(stage: CapturedStage, inputs: Tensor, costate: Tensor) -> tuple[Tensor, Tensor]:
    assert stage.map.outputs is not None
    u, x = stage.map.outputs(costate.detach()), stage.map.rows(inputs)
    u = u.to(torch.promote_types(u.dtype, torch.float32))
    if stage.map.one_hot:
        x = torch.nn.functional.one_hot(x.squeeze(2).long(), stage.weight.shape[0]).to(u.dtype)
        if stage.map.padding is not None:
            x[..., stage.map.padding] = 0
    return u.mT @ x.to(u.dtype).expand(-1, u.shape[1], -1), u.sum(1)
