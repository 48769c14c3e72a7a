"""Polynomial-decay averages of the controls: what is evaluated and kept, while the steps go on from the last
controls.

With a step of constant length the controls end up circling a minimum, at a distance that the noise of the
batches sets. Their average lies nearer to it, and the window of

    a_k = (1 - c_k) a_{k-1} + c_k theta_k,   c_k = (eta + 1) / (k + eta)

grows with the number of steps k: about the last k / (eta + 1) of them count, so that there is no horizon to
be known. (Shamir and Zhang, ICML 2013, section 4.)
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pontryagin.affine.precision import wide

State = dict[str, Any]


def share(step: int, eta: float) -> float:
    """c_k of the k-th step, k from 1; 1 for the first."""
    return (eta + 1) / (step + eta)


def remember(found: Iterable[tuple[Tensor, State]], step: int, eta: float) -> None:
    """Take the controls after the k-th step into their averages, in float32 or wider; one begins where it has
    none."""
    averages, controls = [], []
    for parameter, state in found:
        dtype = wide(parameter.dtype)
        if "mean_control" not in state or state["mean_control"].dtype != dtype:
            state["mean_control"] = parameter.detach().to(dtype, copy=True)
        else:
            averages.append(state["mean_control"])
            controls.append(parameter.detach().to(dtype))
    if averages:
        torch._foreach_lerp_(averages, controls, share(step, eta))


def restart(state: State) -> None:
    """Forget the average: the control has been replaced."""
    state.pop("mean_control", None)
    state.pop("last_control", None)


def show(parameter: Tensor, state: State) -> None:
    """Put the average in the place of the control, which is kept."""
    if "mean_control" in state and "last_control" not in state:
        state["last_control"] = parameter.detach().clone()
        parameter.copy_(state["mean_control"])


def hide(parameter: Tensor, state: State) -> None:
    """The control again, bit by bit."""
    if "last_control" in state:
        parameter.copy_(state.pop("last_control"))
