"""Small stages of any shapes as one: padded with zeros, the bias the weight of an input that is always 1.

Of a small stage each call costs more than its arithmetic, so what counts is their number. With the rows (W,
b) of all stages in one tensor, the argmax of all of them is

    Y = C^(-1/2) ((G, g) - g (s, 0)^T),   (dW, db) = Y [[P, -P s], [0, 1]],   P = (A_c + delta I)^-exponent

(C: whitening.py), and with exponent 1/2 the mean squared change of output i is |Y_i|^2 - delta |dW_i|^2.
Zeros stay zeros, so that padding changes nothing. What lasts is kept by the groups of equal stages that a
pack is made of; what is padded is made anew when their moments change.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from pontryagin.affine import Diagonal, Factor, MeanVariance, Scaled
from pontryagin.affine.metric import is_plain, row_norm
from pontryagin.optim import compiled
from pontryagin.optim.addresses import Addresses
from pontryagin.optim.directions import QUARTER
from pontryagin.optim.fading import reach
from pontryagin.optim.group import Answer, Matrix, Rights, StageGroup, Vector
from pontryagin.optim.numbers import Numbers, as_type, clip, of, tensor
from pontryagin.optim.packed_directions import along_directions
from pontryagin.optim.packed_metric import Calls, PackedMetric, Rows, Single, Subspace, Whole, with_corner
from pontryagin.optim.stage import AffineStage
from pontryagin.optim.whitening import own_share


class Solved(NamedTuple):
    """Y; and rows whose squares, each times its worth, are what the change does to outputs beside their
    means, of no groups where |Y| and |dW| say it."""

    right: np.ndarray
    seen: np.ndarray
    worth: np.ndarray


class Pack:
    """Groups of equal stages, padded to the largest of them. To a step it is a group without biases.

    count: of matrices; outputs, inputs: the most. lengths: outputs of each matrix. change: of all,
    overwritten by the next; change_array, gradient_array: the same numbers, and those of the gradient.
    outside: see `solved`; of no rows where the argmax is whole.
    """

    has_bias_apart = False

    def __init__(self, parts: Sequence[StageGroup]) -> None:
        self.parts, self.first = parts, parts[0].first
        self.stages = [one for part in parts for one in part.stages]
        self.sizes = [size for part in parts for size in part.sizes]
        self.count, self.outputs, self.inputs = shape_of(parts)
        self.lengths = [length for part in parts for length in part.lengths]
        ends = list(accumulate(part.count for part in parts))
        self._places = [slice(end - part.count, end) for part, end in zip(parts, ends, strict=True)]
        self._has_bias = any(part.has_bias_apart for part in parts)
        self.is_whitened = any(one.stage.is_whitened for one in self.stages)
        shape = self.count, self.outputs, self.inputs + self._has_bias
        like = parts[0].velocity
        self._gradient, self.change, self.velocity = (like.new_zeros(shape) for _ in range(3))
        for part, of_part, bias_of_part in self._split(self.velocity):
            part.lend(of_part, bias_of_part)
        self._gradients, self._moves = self._shaped(self._gradient), self._shaped(self.change)
        self.gradient_array, self.change_array, self._shape = (
            of(self._gradient), of(self.change), self._gradient.shape[:2])
        biases = [one.bias for one in self.stages if one.bias is not None]
        self.parameters: list[nn.Parameter] = [*(one.weight for one in self.stages), *biases]
        self._change_of_weights = self.change[..., :self.inputs]
        self._change_of_biases = of(self.change[..., -1])
        self._roots: Tensor | None = None  # where inputs have units: K with (Y K) (Y K)^T = dW A_c dW^T
        self._right = self._whitened = like.new_empty(0)  # Y before and after it is whitened
        self._seen = like.new_empty(0)  # Y K
        self._outputs_of_each = like.new_tensor(self.lengths)
        self._metric: PackedMetric | None = None
        self.outside = of(self._gradient[:0])
        self._made_for: tuple[float, float] | None = None
        self._root: Tensor | None = None
        self._told_root: Tensor | None = None  # of which R_ii was written last
        self._addresses: Addresses | None = None
        self._weights = np.zeros(0, np.int64)  # their numbers there
        self._sizes_of_weights = np.array([one.weight.numel() for one in self.stages])
        self._of_tensors = np.zeros((0, 6), np.int64)

    def renew(self) -> None:
        """The moments have changed."""
        self._metric = None
        for part in self.parts:
            part.renew()

    def follow(self, seen: Mapping[AffineStage, MeanVariance | None]) -> Tensor | None:
        """As that of its groups."""
        found = [part.follow(seen) for part in self.parts]
        if all(one is None for one in found):
            return None
        self._metric = None
        return torch.cat([part.mean.new_ones(part.count) if one is None else one
                          for part, one in zip(self.parts, found, strict=True)])

    def bind(self, addresses: Addresses | None) -> None:
        """Read gradients and write controls by these from now on, as far as they are fresh."""
        known = None if addresses is None else self._found_places(addresses)
        self._addresses = None if known is None else addresses
        self._of_tensors = np.zeros((0, 6), np.int64) if known is None else known
        if self._addresses is not None:
            self._weights = np.array([self._addresses.places[id(one.weight)] for one in self.stages])

    @property
    def fresh(self) -> Addresses | None:
        """Those of this step."""
        return self._addresses if self._addresses is not None and self._addresses.is_fresh else None

    def gradient(self, factors: Sequence[float] | None = None) -> Rows:
        """(G, g) of all stages, each stage's times its factor; overwritten by the next."""
        if factors is None and (addresses := self.fresh) is not None:
            compiled.gathered(addresses.gradients, self._of_tensors, self.gradient_array)
            return self._gradient
        torch._foreach_copy_(self._gradients, [one.weight_gradient() for one in self.stages] + [
            one.bias_gradient() for one in self.stages if one.bias is not None])
        if factors is not None:
            each = [factor for factor, size in zip(factors, self.sizes, strict=True) for _ in range(size)]
            self._gradient.mul_(self._gradient.new_tensor(each).view(-1, 1, 1))
        return self._gradient

    def learns(self, exponent: float, looked: bool) -> bool:
        """As that of its groups."""
        return any(part.learns(exponent, looked) for part in self.parts)

    def learn(self, gradient: Rows | None, mean_change: Vector | None, units: Tensor | None = None) -> None:
        """As that of its groups. gradient: None where it has not been asked for."""
        found = self.gradient() if gradient is None else gradient
        for (part, of_part, bias_of_part), place in zip(self._split(found), self._places, strict=True):
            part.learn(of_part, bias_of_part, None if units is None else units[place])
        self._metric = None

    def keep_learned(self) -> None:
        """As that of its groups."""
        for part in self.parts:
            part.keep_learned()

    def answer(self, gradient: Rows, mean_change: Vector | None, damping: float, exponent: float) -> Answer:
        """As that of a group."""
        metric = self.known_metric(damping, exponent)
        right, share = gradient, None
        if self._has_bias:
            right = torch.addcmul(right, right[..., self.inputs:], self._mean, value=-1)
        if self.is_whitened:
            root, own = self._known_root(), of(torch.linalg.vector_norm(right, dim=2))
            right = torch.bmm(root, right)
            share = own_share(own, of(torch.linalg.vector_norm(right, dim=2)), self._root_diagonal)
        if metric.mask is not None:
            right = right * metric.mask
        metric.solve(right, self.change)
        norm = of(row_norm(self._change_of_weights, exponent))
        return Answer(self.change, self._square(right, norm, metric, damping, exponent), norm,
                      None, None, share)

    def is_compiled(self, damping: float, exponent: float) -> bool:
        """Whether `solved` can be asked."""
        is_plainly = self.first.is_noise(exponent) or is_plain(damping, exponent)
        return (compiled.fits(self.velocity) and is_plainly
                and self.known_metric(damping, exponent).mask is None)

    def solved(self, damping: float, exponent: float, rows: np.ndarray, shift: np.ndarray) -> Solved:
        """The argmax is in `change`, but for Y times `outside`. rows: the first two are written, as
        row_lengths.ROWS says; so is what |dW|^2 counts less."""
        metric, right, found = self.known_metric(damping, exponent), self._gradient, self.gradient_array
        own = rows[0].reshape(self._shape)
        if len(self._right) < len(right):
            self._right, self._whitened = torch.zeros_like(right), torch.empty_like(right)
            self._right_array, self._whitened_array = of(self._right), of(self._whitened)
        if self._has_bias:
            right, found = self._right, self._right_array
            if (addresses := self.fresh) is not None:
                compiled.begun(addresses.gradients, self._of_tensors, self._mean_array, found, own)
            else:
                compiled.centred(of(self.gradient()), self._mean_array, found, own)
        else:
            self.gradient()
            if self.is_whitened:
                compiled.row_squares(self.gradient_array, right.shape[2], own)
                np.sqrt(own, out=own)
        if self.is_whitened:
            root = self._known_root()
            if self._told_root is not root:
                self._told_root, rows[1] = root, self._root_diagonal.reshape(-1)
            right, found = torch.bmm(root, right, out=self._whitened), self._whitened_array
        calls, seen = metric.solving(right, self.change)
        for call in calls:
            call()
        measure = metric.measure
        if measure is not None:
            shift[:] = -of(measure.tail)
            return Solved(found, of(seen), of(measure.worth))
        shift[:] = 0.0 if self._roots is not None else of(metric.shift).reshape(-1)
        return Solved(found, *self._seen_by_roots(right))

    def solving(self, addresses: Addresses, rows: np.ndarray) -> tuple[Calls, np.ndarray]:
        """`solved` again and again, as it was asked last, as long as `made_of` is what it was: all that it
        looks up has been looked up; and what it sees by then."""
        metric, right, own = self._metric, self._gradient, rows[0].reshape(self._shape)
        assert metric is not None
        if self._has_bias:
            right = self._right
            calls: list[Callable[[], Any]] = [partial(
                compiled.begun.direct, addresses.gradients, self._of_tensors, self._mean_array,
                self._right_array, own)]
        else:
            calls = [partial(compiled.gathered.direct, addresses.gradients, self._of_tensors,
                             self.gradient_array)]
            if self.is_whitened:
                calls += [partial(compiled.row_squares.direct, self.gradient_array, right.shape[2], own),
                          partial(np.sqrt, own, out=own)]
        if self.is_whitened:
            calls.append(partial(torch.bmm, self._known_root(), right, out=self._whitened))
            right = self._whitened
        more, seen = metric.solving(right, self.change)
        calls += more
        if metric.measure is not None:
            return tuple(calls), of(seen)
        if self._roots is not None:
            calls.append(partial(torch.bmm, right, self._roots, out=self._seen))
            return tuple(calls), self._seen_array
        return tuple(calls), self.gradient_array[:0]

    @property
    def made_of(self) -> tuple[object, object, object]:
        """What `solved` asks: these very objects."""
        return self._metric, self._root, self._addresses

    @property
    def is_unseen(self) -> bool:
        """Whether C of any stage has seen no gradient yet."""
        return self.is_whitened and any(part.is_unseen for part in self.parts)

    def rights(self, gradient: Rows | None, mean_change: Vector | None, refresh: bool
               ) -> list[Rights | None] | None:
        """As those of its groups. gradient: None where it has not been asked for."""
        if not ((self.is_whitened and refresh) or self.is_unseen):
            return None
        return [part.rights(of_part, bias_of_part, refresh) for part, of_part, bias_of_part
                in self._split(self.gradient() if gradient is None else gradient)]

    @property
    def centred(self) -> tuple[np.ndarray, np.ndarray]:
        """(G - g s^T, g) of what was `solved` last, and (s, 0); without biases the gradient, and no rows."""
        if self._has_bias:
            return self._right_array, self._mean_array
        return self.gradient_array, self.gradient_array[:0]

    def see_outputs(self, rights: Sequence[Rights | None], damping: float, exponent: float) -> None:
        """As that of its groups."""
        for part, one in zip(self.parts, rights, strict=True):
            if one is not None:
                part.see_outputs(one, damping, exponent)
        self._root = None

    def moves(self, change: Rows) -> tuple[Sequence[nn.Parameter], Sequence[Tensor]]:
        """Parameters and their directions, views of the change."""
        assert change is self.change
        return self.parameters, self._moves

    @property
    def places(self) -> np.ndarray:
        """Of all parts of parameters, as compiled.placed asks for them."""
        return self._of_tensors

    def place(self, addresses: Addresses, factor: float) -> None:
        """All parameters plus so much of the change."""
        self.add(addresses, factor)
        increment_version(self.parameters)

    def add(self, addresses: Addresses, factor: float) -> None:
        """The same, of which torch is not told."""
        compiled.placed(addresses.controls, self._of_tensors, self.change_array, factor)

    @property
    def last_gradient(self) -> Rows:
        """The one that was asked for last."""
        return self._gradient

    def known_metric(self, damping: float, exponent: float) -> PackedMetric:
        """[[P, -P s], [0, 1]]."""
        if self._metric is None or self._made_for != (damping, exponent):
            make = self._noise_metric if self.first.is_noise(exponent) else self._new_metric
            self._metric, self._made_for = make(damping, exponent), (damping, exponent)
            outside = self._metric.outside
            self.outside = of(self._gradient[:0] if outside is None else outside)
        return self._metric

    def squared_change(self, right: Rows) -> Numbers:
        """Mean square, of each output, by a product with the moments. right: Y, whose last number is dW s +
        db."""
        squares = right.new_zeros(right.shape[:2])
        for part, change, rows in zip(self.parts, self._split(self.change), self._rows(squares), strict=True):
            rows.copy_(part.metric.squared_change(change[1]))
        own = of(right[..., -1])
        return of(squares) + own * own if self._has_bias else of(squares)

    def reach(self) -> Float[Tensor, " group"]:
        """As that of a group."""
        if (addresses := self.fresh) is not None and self.count == len(self.stages):
            norms = compiled.norms_at(addresses.controls[self._weights], self._sizes_of_weights,
                                      self.change_array)
            return tensor(reach(norms.astype(self.change_array.dtype), of(self._outputs_of_each)))
        weights = [part.whole_weights() for part in self.parts]
        known = None if None in weights or self.count > len(self.stages) else compiled.norms(
            [weight for each in weights if each is not None for weight in each])
        if known is None:
            return torch.cat([part.reach() for part in self.parts])
        return reach(self.velocity.new_tensor(known), self._outputs_of_each)

    def unit(self) -> Tensor | None:
        """None: 1."""
        return None

    def extra(self, change: Rows) -> list[Numbers]:
        """What is finite where the directions of biases are."""
        return [self._change_of_biases.sum()] if self._has_bias else []

    def _square(self, right: Rows, norm: Numbers, metric: PackedMetric, damping: float, exponent: float
                ) -> Numbers:
        """The mean squared change of each output."""
        if (measure := metric.measure) is not None:
            seen = right @ metric.left if isinstance(metric, Subspace) else self.change
            squares = seen[..., :measure.worth.shape[1]].to(measure.worth.dtype).square()
            found = of((squares @ measure.worth.unsqueeze(2)).squeeze(2)) + (
                of(measure.tail)[:, None] * norm * norm)
            own = as_type(of(right[..., -1]), found)
            return found + own * own if self._has_bias else found
        if self._roots is not None:
            whole = of(torch.linalg.vector_norm(torch.bmm(right, self._roots), dim=2))
            return whole * whole + of(right[..., -1])**2 if self._has_bias else whole * whole
        if is_plain(damping, exponent) and exponent < 1:
            whole = of(torch.linalg.vector_norm(right, dim=2))
            return clip(whole * whole - of(metric.shift) * norm * norm, 0, None)
        if not is_plain(damping, exponent):
            return self.squared_change(right)
        whole = of(torch.linalg.vecdot(right[..., :self.inputs], self._change_of_weights))
        found, own = clip(whole - of(metric.shift) * norm * norm, 0, None), of(right[..., -1])
        return found + own * own if self._has_bias else found

    def _known_root(self) -> Tensor:
        if self._root is None:
            self._root = self._gradient.new_zeros(self.count, self.outputs, self.outputs)
            for part, rows in zip(self.parts, self._rows(self._root), strict=True):
                root = part.root
                outputs = part.first.stage.outputs
                if root is None:
                    rows[..., :outputs].diagonal(dim1=1, dim2=2).fill_(1)
                else:
                    rows[..., :outputs].copy_(root)
            self._root_diagonal = of(self._root.diagonal(dim1=1, dim2=2))
        return self._root

    def _noise_metric(self, damping: float, _: float) -> PackedMetric:
        """Of what gradients are seen to be along directions."""
        found = self._new_metric(damping, QUARTER, with_units=False)
        return along_directions(found, self.parts, self._places, self._mean, self._has_bias, damping)

    def _new_metric(self, damping: float, exponent: float, with_units: bool = True) -> PackedMetric:
        like, bias = self._gradient, int(self._has_bias)
        columns = self.inputs + bias
        self._mean = like.new_zeros(self.count, 1, columns)
        shift, known = like.new_zeros(self.count, 1), like.new_ones(self.count, 1)
        for part, place in zip(self.parts, self._places, strict=True):
            self._mean[place, 0, :part.first.stage.inputs] = part.mean
            shift[place], known[place] = part.metric.power(damping, exponent).shift, part.metric.power(
                damping, exponent).is_known
        has_units = with_units and any(part.has_units for part in self.parts)
        self._roots = self._new_roots(damping, exponent) if has_units else None
        mask = None
        if not known.all():
            mask = torch.cat([known.unsqueeze(2).expand(-1, -1, self.inputs), like.new_ones(
                self.count, 1, bias)], 2)
        mean, self._mean_array = self._mean[..., :self.inputs].mT, of(self._mean)
        metric = self.parts[0].metric
        if isinstance(metric, Diagonal):
            product = torch.cat([part.metric.power(damping, exponent).product for part in self.parts])
            product = torch.cat([product, -product * mean], 2) if bias else product
            rest = like.new_zeros(columns)
            rest[1:] = 1
            return Single(product, rest, shift, mask)
        assert isinstance(metric, Factor | Scaled)
        power = metric.power(damping, exponent)
        if power.outside is not None:
            assert isinstance(metric, Factor)
            if not bias:
                return Subspace(power.outside.repeat(1, 1, self.inputs), metric.basis, power.product, shift,
                                 mask)
            left, product = metric.basis, power.product
            return Subspace(
                nn.functional.pad(power.outside.expand(-1, -1, self.inputs), (0, 1)),
                with_corner(left, -power.outside * mean), with_corner(product, -(product @ mean)), shift,
                mask)
        product = like.new_zeros(self.count, columns, columns)
        for part, place in zip(self.parts, self._places, strict=True):
            inputs = part.first.stage.inputs
            product[place, :inputs, :inputs] = part.metric.power(damping, exponent).product
        if bias:
            inner = product[..., :-1, :-1]
            product[..., :-1, -1:] = -(inner @ mean)
            product[..., -1, -1] = 1
        return Whole(product, shift, mask)

    def _new_roots(self, damping: float, exponent: float) -> Tensor:
        """P Q diag(values)^(1/2), P in the units of Q, padded; nothing of what is beside the inputs."""
        found = self.change.new_zeros(self.count, self.change.shape[2], self.inputs)
        for part, place in zip(self.parts, self._places, strict=True):
            inputs, metric = part.first.stage.inputs, part.metric
            own = metric.own if isinstance(metric, Scaled) else metric
            assert isinstance(own, Factor)
            power = own.power(damping, exponent)
            root = own.basis * (power.inside * own.values.sqrt().unsqueeze(1))
            found[place, :inputs, :inputs] = root / metric.unit.mT if isinstance(metric, Scaled) else root
        return found

    def _seen_by_roots(self, right: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Y K, whose rows squared are what the change does to outputs beside their means; of no groups where
        |Y| and |dW| say it."""
        if self._roots is None:
            return self.gradient_array[:0], np.zeros((0, 0))
        if not len(self._seen):
            self._worth = np.ones((self.count, self.inputs))
            self._seen = self._seen.new_empty(*self._shape, self.inputs)
            self._seen_array = of(self._seen)
        torch.bmm(right, self._roots, out=self._seen)
        return self._seen_array, self._worth

    def _split(self, rows: Rows) -> Iterator[tuple[StageGroup, Matrix, Vector | None]]:
        """Of each group what there is of weights, and of biases."""
        for part, of_part in zip(self.parts, self._rows(rows), strict=True):
            yield (part, of_part[..., :part.first.stage.inputs],
                   of_part[..., self.inputs] if part.has_bias_apart else None)

    def _rows(self, values: Tensor) -> list[Tensor]:
        """Those of each group, without what is padded."""
        return [values[place, :part.first.stage.outputs]
                for part, place in zip(self.parts, self._places, strict=True)]

    def _found_places(self, addresses: Addresses) -> np.ndarray | None:
        """Of every part of a parameter what compiled.gathered asks for; None where parameters are not among
        them, or lie otherwise than rows do."""
        if not (compiled.fits(self.velocity) and addresses.kind is self.velocity.dtype
                and all(id(one) in addresses.places for one in self.parameters)):
            return None
        found, group = [], 0
        for part in self.parts:
            outputs, inputs = part.first.stage.outputs, part.first.stage.inputs
            for one, size in zip(part.stages, part.sizes, strict=True):
                rows = torch.arange(size * outputs * inputs).view(size, outputs, inputs)
                if not torch.equal(one.stage.map.shaped(rows).reshape(-1), rows.reshape(-1)):
                    return None
                for n in range(size):
                    number = addresses.places[id(one.weight)]
                    found.append((number, n * outputs * inputs, group, outputs, 0, inputs))
                    if one.bias is not None:
                        number = addresses.places[id(one.bias)]
                        found.append((number, n * outputs, group, outputs, self.inputs, 1))
                    group += 1
        return np.array(found)

    def _shaped(self, rows: Rows) -> list[Tensor]:
        """Views of the shapes of the parameters, weights before biases."""
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for part, of_part, bias_of_part in self._split(rows):
            weights += [one.stage.map.shaped(each) for one, each in zip(
                part.stages, of_part.split(part.sizes), strict=True)]
            if bias_of_part is not None:
                biases += [each.view(one.bias.shape) for one, each in zip(  # type: ignore[union-attr]
                    part.stages, bias_of_part.split(part.sizes), strict=True)]
        return weights + biases


def shape_of(parts: Sequence[StageGroup]) -> tuple[int, int, int]:
    """(matrices, outputs, inputs) of a pack."""
    stages = [part.first.stage for part in parts]
    return (sum(part.count for part in parts), max(one.outputs for one in stages),
            max(one.inputs for one in stages))
