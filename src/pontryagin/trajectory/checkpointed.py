"""States and costates in memory of the square root of the number of stages."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.errors import NonFiniteError, ProblemError
from pontryagin.problem import ControlProblem, Controls


@dataclass(frozen=True)
class Segment:
    """Some stages in a row, first ... first + len(gradients) - 1.

    states: x_first ... and costates: p_first ..., one more than stages, as in a Trajectory. gradients:
    dJ/dtheta of every stage, -mean over samples of grad_theta H_n. terminal: Phi_i, the same in all segments.
    """

    first: int
    states: tuple[Tensor, ...]
    costates: tuple[Tensor, ...]
    gradients: Controls
    terminal: Float[Tensor, " sample"]


def checkpointed(problem: ControlProblem, controls: Controls,
                 length: int | None = None) -> Iterator[Segment]:
    """The trajectory in segments, from the last to the first: each is all that an argmax of its stages needs.

    The forward pass keeps one state of every segment; a segment's other states are propagated again, with
    their graph, when the costate pass comes to it. With N stages in segments of `length`, by default
    sqrt(N), N / length + 3 length states are alive at once, at the price of a second forward pass. States and
    costates are those of `propagate`.

    States are floating point. Raises NonFiniteError where the terminal cost or a costate is not finite.
    Source: Chen et al. 2016 (arXiv 1604.06174); Griewank 1992.
    """
    number = len(problem.stages)
    length = max(1, isqrt(number)) if length is None else length
    if length < 1 or not problem.initial_state.is_floating_point():
        raise ProblemError("checkpointed: expected segments of at least one stage and floating-point states, "
                           f"found length {length} and {problem.initial_state.dtype}")
    return _segments(problem, problem.check_controls(controls), range(0, number, length), length)


def _segments(problem: ControlProblem, controls: Controls, firsts: range, length: int) -> Iterator[Segment]:
    kept, state = [], problem.initial_state.detach()
    with torch.no_grad():
        for n, (stage, control) in enumerate(zip(problem.stages, controls, strict=True)):
            if n % length == 0:
                kept.append(state)
            state = stage(state, control)
    costate, terminal = _end(problem, state)
    for first in reversed(firsts):
        segment = _segment(problem, controls[first:first + length], first, kept.pop(), costate, terminal)
        costate = segment.costates[0]
        if not costate.isfinite().all():
            raise NonFiniteError(f"the costate at state {first} of {len(controls)} holds NaN or infinite "
                                 "values")
        yield segment
        del segment  # not alive beside the next one


def _end(problem: ControlProblem, state: Tensor) -> tuple[Tensor, Tensor]:
    """p_N and Phi_i."""
    leaf = state.detach().requires_grad_()
    with torch.enable_grad():
        terminal = problem.terminal_cost(leaf, problem.target)
        total = terminal.sum()
        if not total.requires_grad:  # a cost that no state changes
            total.requires_grad_()
        costate, = torch.autograd.grad(total, leaf, -torch.ones_like(total), allow_unused=True,
                                       materialize_grads=True)
    if not terminal.isfinite().all():
        raise NonFiniteError("the terminal cost is NaN or infinite: `propagate` names the stage")
    return costate, terminal.detach()


def _segment(problem: ControlProblem, controls: Controls, first: int, state: Tensor, costate: Tensor,
             terminal: Tensor) -> Segment:
    """One segment by one backward pass from its last costate."""
    stages = problem.stages[first:first + len(controls)]
    with torch.enable_grad():
        leaves = [control.detach().requires_grad_() for control in controls]
        states = [state.detach().requires_grad_()]
        for stage, leaf in zip(stages, leaves, strict=True):
            states.append(stage(states[-1], leaf))
        found = torch.autograd.grad((states[-1] * costate).sum(), [*states[:-1], *leaves], allow_unused=True,
                                    materialize_grads=True)
        costs = [stage.cost(leaf) for stage, leaf in zip(stages, leaves, strict=True) if stage.size]
    gradients = [-pulled / problem.samples for pulled in found[len(states) - 1:]]
    if any(cost.requires_grad for cost in costs):
        regular = torch.autograd.grad(torch.stack(costs).sum(), leaves, allow_unused=True,
                                      materialize_grads=True)
        gradients = [own + more for own, more in zip(gradients, regular, strict=True)]
    return Segment(first, tuple(each.detach() for each in states),
                   (*found[:len(states) - 1], costate), tuple(gradients), terminal)
