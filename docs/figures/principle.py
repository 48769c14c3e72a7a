"""Draw the six pictures of docs/principle.md beside this file, principle-1.png to principle-6.png.

    python docs/figures/principle.py        (needs the extra `plots`; half a minute)

Every curve is computed here: the paper's sine network, 20 steps of a state of 5 components (Figure 1 (a)), in
float64, and for the last picture one Linear stage.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from torch import Tensor, nn

import pontryagin as pmp
from pontryagin.hamiltonian import costate_error, hamiltonian, state_error
from pontryagin.run.figures.canvas import log_ticks, plain
from pontryagin.trajectory import propagate, terminal_costs
from pontryagin.update import AcceptReject, Plain

SIZE, DEPTH, STEP = (5.6, 3.3), 20, 0.25
"""Inches, so that letters can be read on a phone; layers; delta."""
INK, GREY, BLUE, RED, GREEN, ORANGE = "#222222", "#8A8A8A", "#0072B2", "#D55E00", "#009E73", "#E69F00"
SHOWN = 9
"""Samples drawn, by their input."""


def sine() -> tuple[pmp.ControlProblem, tuple[Tensor, ...]]:
    """sin x by x_{n+1} = x_n + delta tanh(W_n x_n + b_n), the input copied into five components, the
    prediction their sum; and the good initialization."""
    torch.manual_seed(0)
    x = torch.linspace(-torch.pi, torch.pi, 201, dtype=torch.float64)
    step = nn.Sequential(nn.Linear(5, 5), nn.Tanh()).double()
    problem = pmp.ControlProblem(pmp.euler(step, step_size=STEP, steps=DEPTH),
                                 pmp.SquaredError(lambda state: state.sum(-1)), x[:, None].repeat(1, 5),
                                 x.sin())
    weights = 0.1 * torch.randn(DEPTH, 25, dtype=torch.float64)
    return problem, tuple(torch.cat([row, torch.full((5,), 0.1, dtype=torch.float64)]) for row in weights)


def states(axes: Axes, problem: pmp.ControlProblem, before: Sequence[Tensor], after: Sequence[Tensor]
           ) -> None:
    """The sum of the components along time, before (grey) and after training."""
    time, shown = STEP * np.arange(DEPTH + 1), np.linspace(0, problem.samples - 1, SHOWN).round().astype(int)
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, SHOWN))
    for controls, trained in ((before, False), (after, True)):
        sums = torch.stack([state.sum(-1) for state in propagate(problem, controls).states])[:, shown]
        for values, color, x in zip(sums.T, colors, problem.initial_state[shown, 0].tolist(), strict=True):
            axes.plot(time, values, color=color if trained else "#CCCCCC", linewidth=1.6 if trained else 0.9,
                      zorder=3 if trained else 2)
            if trained:
                axes.plot(time[-1], np.sin(x), "o", color=color, markersize=6, markerfacecolor="white",
                          clip_on=False, zorder=4)
    axes.set(xlabel="time t", ylabel="sum of the state", xlim=(0, time[-1]), ylim=(-21, 17))
    axes.text(0.15, -19.6, "grey: before training; circles: targets sin x", color=GREY, fontsize=9)


def costates(axes: Axes, problem: pmp.ControlProblem, controls: Sequence[Tensor]) -> None:
    """The first component of p, which begins at the end."""
    time, shown = STEP * np.arange(DEPTH + 1), np.linspace(0, problem.samples - 1, SHOWN).round().astype(int)
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, SHOWN))
    for values, color in zip(torch.stack(propagate(problem, controls).costates)[:, shown, 0].T, colors,
                             strict=True):
        axes.plot(time, values, color=color, linewidth=1.6)
        axes.plot(time[-1], values[-1], "o", color=color, markersize=6, markerfacecolor="white",
                  clip_on=False, zorder=4)
    axes.annotate("", (0.4, 0.93), (4.6, 0.93), xycoords=("data", "axes fraction"),
                  arrowprops={"arrowstyle": "-|>", "color": INK})
    axes.text(2.5, 0.95, "computed backward, from minus the gradient of the loss", ha="center", fontsize=9,
              transform=axes.get_xaxis_transform())
    low, high = axes.get_ylim()
    axes.set(xlabel="time t", ylabel="costate, first component", xlim=(0, time[-1]),
             ylim=(low, high + 0.25 * (high - low)))


def maximum(axes: Axes, problem: pmp.ControlProblem, controls: Sequence[Tensor]) -> None:
    """H of one stage over one bias, its maximizer over all numbers, over an interval, over three values."""
    number, entry = 10, 26
    path, theta = propagate(problem, controls), controls[number]
    grid = torch.linspace(-3, 3, 601, dtype=torch.float64)

    def value(b: float) -> float:
        changed = theta.clone()
        changed[entry] = b
        return float(hamiltonian(problem.stages[number], changed, path.states[number],
                                 path.costates[number + 1]).mean())

    values = np.array([value(float(b)) for b in grid])
    axes.plot(grid, values, color=INK, linewidth=1.6)
    axes.plot(theta[entry], value(float(theta[entry])), "o", color=GREY, markersize=7, label="now")
    best = int(values.argmax())
    inside = ((grid + 0.2).abs() <= 0.2001).numpy()
    held = int(np.where(inside, values, -np.inf).argmax())
    three = max((-1.0, 0.0, 1.0), key=value)
    axes.axvspan(-0.4, 0, color=BLUE, alpha=0.08, linewidth=0)
    axes.plot(grid[best], values[best], "*", color=RED, markersize=13, label="argmax over all numbers")
    axes.plot(grid[held], values[held], "s", color=BLUE, markersize=7, label="over [-0.4, 0]")
    axes.plot([-1, 0, 1], [value(b) for b in (-1.0, 0.0, 1.0)], "D", color=GREEN, markersize=6,
              markerfacecolor="white")
    axes.plot(three, value(three), "D", color=GREEN, markersize=7, label="over {-1, 0, 1}")
    axes.set(xlabel="one entry of the control (a bias of stage 10)", ylabel="H, mean over samples")
    axes.legend(fontsize=9)


def divergence(axes: Axes, problem: pmp.ControlProblem, controls: Sequence[Tensor]) -> None:
    """J by iteration of basic and of extended MSA."""
    basic = pmp.MSA(problem, controls, maximizer=pmp.LBFGS())
    extended = pmp.ExtendedMSA(problem, controls, maximizer=pmp.LBFGS(), penalty=AcceptReject(),
                               acceleration=Plain())
    for solver, color, label in ((basic, RED, "basic MSA"), (extended, BLUE, "extended MSA")):
        records = list(solver.iterate(15))
        axes.plot([0, *(record.iteration for record in records)],
                  [records[0].objective_before, *(record.objective_after for record in records)],
                  color=color, marker="o", markersize=3.5, linewidth=1.6, label=label)
    axes.set_yscale("log")
    log_ticks(axes.yaxis)
    axes.set(xlabel="iteration", ylabel="J, mean squared error")
    axes.legend(fontsize=9)


def lemma(axes: Axes, problem: pmp.ControlProblem, controls: Sequence[Tensor]) -> None:
    """Along the way to basic MSA's argmax, after three iterations of extended MSA: what the Hamiltonians
    promise, what J does, and the errors."""
    near = pmp.ExtendedMSA(problem, controls)
    list(near.iterate(3))
    controls = near.controls
    path = propagate(problem, controls)
    basic = pmp.MSA(problem, controls, maximizer=pmp.LBFGS())
    next(iter(basic.iterate(1)))
    start = float(path.terminal.mean())
    shares = np.geomspace(1e-4, 1, 60)
    promised, true, errors = [], [], []
    for share in shares:
        new = [old + float(share) * (end - old) for old, end in zip(controls, basic.controls, strict=True)]
        each = [(hamiltonian(s, c, x, q) - hamiltonian(s, o, x, q), state_error(s, c, x, y) + costate_error(
            s, c, x, p, q)) for s, c, o, x, y, p, q in zip(
                problem.stages, new, controls, path.states[:-1], path.states[1:], path.costates[:-1],
                path.costates[1:], strict=True)]
        promised.append(start - sum(float(gain.mean()) for gain, _ in each))
        errors.append(sum(float(error.mean()) for _, error in each))
        true.append(float(terminal_costs(problem, new).mean()))
    axes.plot(shares, true, color=INK, linewidth=1.8, label="J, truly")
    axes.plot(shares, promised, color=ORANGE, linewidth=1.6, label="J minus the gains: promised")
    axes.plot(shares, errors, color=RED, linewidth=1.4, linestyle=(0, (4, 2)), label="feasibility errors")
    axes.set_yscale("symlog", linthresh=2 * start)
    axes.axhline(start, color=GREY, linewidth=0.7)
    axes.set_xscale("log")
    axes.set_yticks([-10, -1, 0, 1, 10, 100, 1000, 10000])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(plain))
    axes.set(xlabel="share of the way to the argmax", ylabel="units of J", xlim=(1e-4, 1))
    axes.legend(fontsize=9)


def closed_form(axes: Axes) -> None:
    """H~ of a Linear stage with two weights: gradient ascent beside the argmax."""
    torch.manual_seed(1)
    double = {"dtype": torch.float64}
    x = torch.randn(400, 2, **double) @ torch.tensor([[1.5, 0.6], [0.0, 0.25]], **double)
    u = (x @ torch.tensor([0.8, -1.6], **double)) + 0.3 * torch.randn(400, **double)
    moment, slope = (x.T @ x / 400).numpy(), (x * u[:, None]).mean(0).numpy()
    best = np.linalg.solve(moment, slope)
    first, second = np.meshgrid(np.linspace(-0.6, 1.9, 160), np.linspace(-2.4, 0.9, 160))
    both = np.stack([first, second], -1)
    value = both @ slope - 0.5 * np.einsum("...i,ij,...j", both, moment, both)
    top = slope @ best / 2
    axes.contour(first, second, value, levels=top - np.geomspace(2.5, 0.004, 12), colors=GREY, linewidths=0.7,
                 linestyles="solid")
    way = [np.zeros(2)]
    for _ in range(30):
        way.append(way[-1] + 0.75 * (slope - moment @ way[-1]))
    axes.plot(*np.transpose(way), color=RED, marker="o", markersize=3, linewidth=1.2,
              label="30 steps of gradient ascent")
    axes.annotate("", best, (0, 0), arrowprops={"arrowstyle": "-|>", "color": BLUE, "linewidth": 1.8,
                                                "shrinkA": 0, "shrinkB": 0})
    axes.plot(*best, "*", color=BLUE, markersize=13, label="the argmax, by one solve")
    axes.plot(0, 0, "o", color=INK, markersize=5)
    axes.set(xlabel="change of the first weight", ylabel="of the second")
    axes.legend(fontsize=9, loc="lower left")


def main() -> None:
    """All six."""
    style = Path(pmp.__file__).parent / "run" / "figures" / "canvas.mplstyle"
    with matplotlib.rc_context(matplotlib.rc_params_from_file(style, use_default_template=False)):
        problem, start = sine()
        solver = pmp.ExtendedMSA(problem, start)
        solver.solve(150)
        drawn = (lambda axes: states(axes, problem, start, solver.controls),
                 lambda axes: costates(axes, problem, start), lambda axes: maximum(axes, problem, start),
                 lambda axes: divergence(axes, problem, start), lambda axes: lemma(axes, problem, start),
                 closed_form)
        for number, draw in enumerate(drawn, start=1):
            figure = Figure(figsize=SIZE, layout="constrained")
            FigureCanvasAgg(figure)
            draw(figure.subplots())
            figure.savefig(Path(__file__).with_name(f"principle-{number}.png"), metadata={"Software": None})


if __name__ == "__main__":
    main()
