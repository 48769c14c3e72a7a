"""Settings of penalty rules, accelerations and solvers that make no sense."""

from collections.abc import Callable

import pytest
import torch

from builders import tanh_problem
from pontryagin.problem import ProblemError
from pontryagin.update import AcceptReject, ExtendedMSA, Momentum, Secant

REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "negative rho": (lambda: AcceptReject(rho=-1.0), "rho_state: expected a finite penalty >= 0, found -1"),
    "infinite rho": (lambda: AcceptReject(rho=float("inf")), "rho_state: .* found inf"),
    "no rho": (lambda: AcceptReject(rho=0.0),
               "rho: expected a penalty > 0 to start from, found 0.*use Fixed"),
    "costate weight": (lambda: AcceptReject(costate_weight=-2.0), "rho_costate: .* found -2"),
    "sufficient": (lambda: AcceptReject(sufficient=1.0),
                   r"sufficient: expected a number in \[0, 1\), found 1"),
    "grow": (lambda: AcceptReject(grow=(1.0, 2.0)), r"1 < grow\[0\].*found grow=\(1.0, 2.0\)"),
    "shrink": (lambda: AcceptReject(shrink=(0.9, 0.5)),
               r"shrink\[0\] <= shrink\[1\], found .*shrink=\(0.9, 0.5\)"),
    "beta": (lambda: Momentum(1.0), r"beta: expected a number in \[0, 1\), found 1"),
    "negative beta": (lambda: Momentum(-0.1), r"beta: .* found -0.1"),
    "history_size": (lambda: Secant(history_size=0), "history_size: expected a number >= 1, found 0"),
    "controls": (lambda: ExtendedMSA(tanh_problem(), [torch.zeros(12)]),
                 "expected 3 controls, one a stage, found 1"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        make()
