"""Draw architecture.png beside this file: the rooms of the house, and the three ways through it.

    python docs/figures/architecture.py        (needs the extra `plots`)

Rooms, files and their order are those of the code; import-linter's list in pyproject.toml is the same.
"""

from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

WIDTH, LEFT, RIGHT = 10.0, 0.12, 9.88
WALL = 4.45
"""Where the rooms end and the ways begin, inches from the left."""
INK, GREY, PAPER = "#222222", "#8A8A8A", "#F4F4F1"
STEPS = {1: ("trajectory", "#0072B2"), 2: ("Hamiltonian model", "#009E73"), 3: ("argmax", "#D55E00"),
         4: ("update", "#7A3E9D")}
HEART = "#FCE9D9"
FLOORS = (
    (("errors", "ProblemError, NonFiniteError"),),
    (("affine", "the stage z = W x + b, once: layers, rows, moments,\nmetric, argmax. A layer of yours: one call"),),
    (("problem", "stages, dynamics, costs, admissible sets"),),
    (("trajectory", "states and costates: propagated, or captured"),),
    (("hamiltonian", "H, augmented H, feasibility errors"),),
    (("maximizer", "the argmax, one file a method"),),
    (("distributed", "who maximizes which stage"),),
    (("update", "MSA, ExtendedMSA"), ("optim", "EMSA for torch")),
    (("diagnostics", "records, Hessian spectra"),),
    (("audit", "what is still to be had"), ("export", "weights in bits")),
    (("run", "train, compare, predict: tasks, methods, the race"),),
    (("papers", "an experiment a folder"), ("bench", "speed")),
    (("cli", "the command line"),),
)
"""From the ground up: the rooms of a floor, each with a line."""
TALL = {"affine": 0.98}
"""Inches; the others 0.42."""


@dataclass(frozen=True)
class Way:
    """How one user goes: down from the trajectory into the affine room, and up to its own."""

    name: str
    takes: str
    left: float
    right: float
    first: str
    model: str
    argmax: str
    room: str
    last: str
    does: str
    others: tuple[str, str] | None = None
    """Where stages that are not affine have their model and their argmax."""


WAYS = (
    Way("ExtendedMSA", "a control problem", 4.78, 5.92, "propagate.py", "stage_moments.py", "penalized_argmax.py",
        "update", "msa.py", "tested by J", ("hamiltonian.py", "lbfgs.py, ...")),
    Way("EMSA", "any torch module", 6.66, 7.66, "capture.py", "moments.py", "argmax.py, polar.py", "optim", "step.py",
        "momentum"),
    Way("audit", "a trained network", 8.52, 9.55, "capture.py", "moments.py", "argmax.py", "audit", "gap.py",
        "measured only"),
)


def floors() -> dict[str, tuple[float, float]]:
    """Bottom and top of every room."""
    found, bottom = {}, 0.12
    for rooms in FLOORS:
        top = bottom + TALL.get(rooms[0][0], 0.42)
        found |= dict.fromkeys((name for name, _ in rooms), (bottom, top))
        bottom = top + 0.055
    return found


def main() -> None:
    """Draw it."""
    places = floors()
    height = places["cli"][1] + 1.32
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, height))
    axes.axis("off")
    _sentence(axes, height - 0.36)
    axes.text(LEFT + 0.1, places["cli"][1] + 0.15, "the rooms: each imports only from those below", size=9, color=INK,
              va="center")
    for rooms in FLOORS:
        _floor(axes, rooms, places)
    for way in WAYS:
        _way(axes, way, places)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=150, facecolor="white", metadata={"Software": None})


def _sentence(axes: Axes, y: float) -> None:
    x = LEFT
    for number, (word, color) in STEPS.items():
        length = 0.62 + 0.112 * len(word)
        _box(axes, x, y - 0.2, length, 0.4, color)
        axes.text(x + length / 2, y - 0.01, f"{number}  {word}", color="white", size=12.5, weight="bold", ha="center",
                  va="center")
        x += length
        if number < len(STEPS):
            axes.add_patch(FancyArrowPatch((x + 0.05, y), (x + 0.4, y), arrowstyle="-|>", mutation_scale=14,
                                           color=INK, shrinkA=0, shrinkB=0))
            x += 0.45
    axes.text(x + 0.15, y, "an iteration of the\nmaximum principle", color=INK, size=9.5, va="center", linespacing=1.15)


def _floor(axes: Axes, rooms: tuple[tuple[str, str], ...], places: dict[str, tuple[float, float]]) -> None:
    bottom, top = places[rooms[0][0]]
    heart = rooms[0][0] == "affine"
    _box(axes, WALL + 0.06, bottom, RIGHT - WALL - 0.06, top - bottom, HEART if heart else PAPER)
    width = (WALL - LEFT - 0.05 * (len(rooms) - 1)) / len(rooms)
    for place, (name, line) in enumerate(rooms):
        x = LEFT + place * (width + 0.05)
        _box(axes, x, bottom, width, top - bottom, HEART if heart else PAPER)
        y = top - 0.24 if heart else (bottom + top) / 2
        word = axes.text(x + 0.1, y, name, size=13 if heart else 10.5, weight="bold", color=INK, va="center")
        if heart:
            axes.text(x + 0.1, bottom + 0.34, line, size=9, color=INK, va="center", linespacing=1.25)
        else:
            axes.annotate(line, xy=(1, 0.5), xycoords=word, xytext=(7, 0), textcoords="offset points", size=8.6,
                          color=INK, va="center")


def _way(axes: Axes, way: Way, places: dict[str, tuple[float, float]]) -> None:
    def middle(room: str) -> float:
        return sum(places[room]) / 2

    start, low, end = middle("trajectory"), places["affine"][1] - 0.24, middle(way.room)
    corners = [(way.left, start), (way.left, low), (way.right, low), (way.right, end)]
    _line(axes, corners, (2, 3, 4))
    if way.others:
        beside = [(way.left, start), (way.left, middle("hamiltonian")), (way.left, middle("maximizer")),
                  (way.left, end), (way.right, end)]
        _line(axes, beside, (2, 3, 4, 4), dashed=True)
        for number, (x, y), name in zip((2, 3), beside[1:], way.others, strict=False):
            _station(axes, number, x, y)
            axes.text(x + 0.17, y, name, size=8.6, color=STEPS[number][1], va="center")
        axes.text(way.left + 0.1, middle("distributed"), "other stages", size=8.6, color=GREY, va="center", style="italic")
    for number, (x, y) in enumerate(corners, 1):
        _station(axes, number, x, y)
    axes.text(way.left + 0.17, start, way.first, size=8.6, color=STEPS[1][1], va="center")
    axes.text(way.left - 0.1, low - 0.26, way.model, size=8.6, color=STEPS[2][1], va="center")
    axes.text(way.left - 0.1, low - 0.46, way.argmax, size=8.6, color=STEPS[3][1], va="center")
    at_wall = way is WAYS[-1]
    axes.text(way.right + (-0.17 if at_wall else 0.17), end, f"{way.last}\n{way.does}", size=8.6, color=STEPS[4][1],
              va="center", ha="right" if at_wall else "left", linespacing=1.2)
    top = places["cli"][1]
    axes.text(way.left - 0.1, top + 0.38, way.name, size=13, weight="bold", color=INK, va="center")
    axes.text(way.left - 0.1, top + 0.15, way.takes, size=9, color=INK, va="center")


def _line(axes: Axes, corners: list[tuple[float, float]], steps: tuple[int, ...], dashed: bool = False) -> None:
    for (x, y), (to_x, to_y), number in zip(corners, corners[1:], steps, strict=False):
        axes.plot([x, to_x], [y, to_y], color=STEPS[number][1], linewidth=1.8 if dashed else 3,
                  linestyle=(0, (2, 1.3)) if dashed else "-", zorder=2)


def _station(axes: Axes, number: int, x: float, y: float) -> None:
    axes.plot([x], [y], marker="o", markersize=15, color=STEPS[number][1], markeredgecolor="white", markeredgewidth=1.2,
              zorder=3)
    axes.text(x, y - 0.008, str(number), size=9.5, weight="bold", color="white", ha="center", va="center", zorder=4)


def _box(axes: Axes, x: float, y: float, width: float, height: float, color: str) -> None:
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.05", facecolor=color,
                                  edgecolor="none", zorder=1))


if __name__ == "__main__":
    main()
