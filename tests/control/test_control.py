"""The classical problems: their optima by other means, and the command that solves them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from builders import assert_close
from pontryagin.cli import main
from pontryagin.continuous import Discretization, solve
from pontryagin.papers.control import experiment
from pontryagin.papers.control.experiment import attempt
from pontryagin.papers.control.integer import rounded, sum_up
from pontryagin.papers.control.problems import (
    CASES,
    bounded_energy,
    fishing,
    least_time,
    linear_quadratic,
    many_starts,
    pendulum,
    riccati,
    two_level,
    van_der_pol,
)
from redrawn import assert_drawn_again


def test_linear_quadratic_is_riccati_in_three_iterations() -> None:
    on = linear_quadratic(many_starts())
    found = solve(on)
    assert found.iterations <= 3
    assert abs(found.objective - riccati(on)) < 1e-10 * riccati(on)


def test_closed_forms() -> None:
    """Least energy by quadrature on a fine grid, and the minimum time by simulation."""
    t = torch.linspace(0, 1, 200001, dtype=torch.float64)
    low, high = 5.0, 20.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        u = (middle * (1 - 2 * t)).clamp(-5, 5)
        low, high = (middle, high) if float(torch.trapezoid((1 - t) * u, t)) < 1 else (low, middle)
    assert abs(float(torch.trapezoid(0.5 * u.square(), t)) - bounded_energy()) < 1e-6
    time, switch = least_time(-1.2, 0.4)
    x, v = -1.2, 0.4
    for thrust, length in ((1, switch), (-1, time - switch)):
        x, v = x + v * length + 0.5 * thrust * length ** 2, v + thrust * length
    assert abs(x) + abs(v) < 1e-12


def _van_der_pol(t: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, v, p, q, _ = y
    return np.vstack([(1 - v**2) * x - v + p / 2, x, 2 * x - p * (1 - v**2) - q, 2 * v + p * (2 * v * x + 1),
                      x**2 + v**2 + p**2 / 4])


def _pendulum(t: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, v, p, q, _ = y
    return np.vstack([v, 4 * np.sin(x) - 0.1 * v + q, -4 * q * np.cos(x), 0.1 * q - p, q**2 / 2])


def _two_level(t: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b, c, p, q, r, _ = y
    u = r * b - q * c
    return np.vstack([-b, a - u * c, u * b, -q, p - r * u, q * u, u**2 / 2])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "make", "slope", "ends"), [
    ("van-der-pol", van_der_pol, _van_der_pol, lambda a, b: [a[0], a[1] - 1, a[4], b[2], b[3]]),
    ("pendulum", pendulum, _pendulum, lambda a, b: [a[0] - np.pi, a[1], a[4], b[0], b[1]]),
    ("two-level", two_level, _two_level, lambda a, b: [a[0], a[1], a[2] - 1, a[6], b[3], b[4], b[5] + 10]),
])
def test_boundary_value_problems(name: str, make: Callable[[], Discretization], slope: Callable,
                                 ends: Callable) -> None:
    """The maximum principle's equations by collocation, from the solution of the discretized problem."""
    from scipy.integrate import solve_bvp

    case = CASES[name]
    found = solve(make(), case.start, tolerance=1e-7)
    start = torch.cat([found.states[:, 0], found.costates[:, 0], 0 * found.states[:, 0, :1]], 1).mT.numpy()
    exact = solve_bvp(slope, lambda a, b: np.array(ends(a, b)), found.t.numpy(), start, tol=1e-9,
                      max_nodes=100000)
    assert exact.success
    value = exact.y[-1, -1] + (10 * (1 + exact.y[2, -1]) if name == "two-level" else 0.0)
    assert abs(value - case.optimum()) < 1e-9 * value
    assert abs(found.objective - case.optimum()) < 1e-5 * case.optimum()


def test_sum_up_rounding_keeps_the_integral() -> None:
    values = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    steps = torch.rand(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    found = sum_up(values, steps)
    assert set(found.tolist()) == {0.0, 1.0}
    assert float(((values - found) * steps).cumsum(0).abs().max()) <= float(steps.max())


def test_integer_controls_get_no_worse() -> None:
    found = rounded(fishing(24), most=5)
    assert set(found.values.tolist()) == {0.0, 1.0}
    assert found.relaxed < found.improved <= found.rounded


def test_shooting_finds_the_same() -> None:
    ours, scipys = (attempt(CASES["linear-quadratic"], method) for method in experiment.METHODS)
    assert_close(ours.solution.values, scipys.solution.values, 1e-3)
    assert ours.evaluations < scipys.evaluations


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "control", "--problems", "linear-quadratic", "--repeats", "1", "--out", str(out)])
    assert stop.value.code == 0
    assert "linear-quadratic" in capsys.readouterr().out
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["newton", "l-bfgs-b"]
    assert float(rows[0]["relative_error"]) < 1e-10
    summary = json.loads((out / "summary.json").read_text())
    assert not summary["interrupted"]
    assert summary["optima"]["linear-quadratic"]["source"]
    assert "1 problems" not in (page := (out / "report.html").read_text())
    assert " of the optimum, relatively, in " in page
    assert (out / "figures" / "linear-quadratic.png").read_bytes().startswith(b"\x89PNG")
    assert_drawn_again(out)
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "control", "--problems", "unknown", "--out", str(tmp_path / "other")])
    assert stop.value.code == 2
