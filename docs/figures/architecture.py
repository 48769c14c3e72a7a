"""Draw architecture.png beside this file: the rooms of the house, and the three ways through it.

    python docs/figures/architecture.py        (needs the extra `plots`)

Rooms and files that the code does not have, or another order of rooms than import-linter's, are refused.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).resolve().parents[2]
WIDTH, LEFT, RIGHT = 10.0, 0.12, 9.88
WALL = 4.45
"""Where the rooms end and the ways begin, inches from the left."""
LOW, TALL = 0.42, 0.98
"""Heights of floors: that of the affine room is tall."""
INK, GREY, PAPER, HEART = "#222222", "#8A8A8A", "#F4F4F1", "#FCE9D9"
STEPS = {1: ("trajectory", "#0072B2"), 2: ("Hamiltonian model", "#009E73"), 3: ("argmax", "#D55E00"),
         4: ("update", "#7A3E9D")}
FLOORS = (
    {"errors": "ProblemError, NonFiniteError"},
    {"affine": "the stage z = W x + b, once: layers, rows, moments,\n"
               "metric, argmax; a layer of yours by one call"},
    {"problem": "stages, dynamics, costs, admissible sets"},
    {"trajectory": "states and costates: propagated, or captured"},
    {"hamiltonian": "H, augmented H, feasibility errors"},
    {"maximizer": "the argmax, one file a method"},
    {"distributed": "who maximizes which stage"},
    {"update": "MSA, ExtendedMSA", "optim": "EMSA for torch"},
    {"diagnostics": "records, spectra", "continuous": "f(t, x, theta)"},
    {"audit": "what is still to be had", "export": "weights in bits"},
    {"run": "train, compare, predict: tasks, methods, the race"},
    {"papers": "a folder each", "bench": "speed"},
    {"cli": "the command line"},
)
"""From the ground up: the rooms of a floor, and a line for each."""


@dataclass(frozen=True)
class Way:
    """How one user goes: from the trajectory down into the affine room, and up to a room of its own.

    left, right: of the two strokes, inches. first, model, argmax, last: files of the four steps. does: what
    is done with the argmax. others: where stages that are not affine have their model and their argmax.
    """

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
    others: tuple[str, ...] = ()


WAYS = (
    Way("ExtendedMSA", "a control problem", 4.78, 5.92, "propagate.py", "stage_moments.py",
        "penalized_argmax.py", "update", "msa.py", "tested by J", ("hamiltonian.py", "lbfgs.py, ...")),
    Way("EMSA", "any torch module", 6.66, 7.66, "capture.py", "moments.py", "argmax.py, polar.py", "optim",
        "step.py", "momentum"),
    Way("audit", "a trained network", 8.52, 9.55, "capture.py", "moments.py", "argmax.py", "audit", "gap.py",
        "measured only"),
)
Point = tuple[float, float]
Places = dict[str, Point]
"""Bottom and top of every room."""


def check() -> None:
    """Exit with what the picture has and the code has not."""
    listed = re.search(r"layers = \[\n(.*?)\n\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.S)
    lines = [set(re.findall(r"pontryagin\.(\w+)", line)) for line in listed[1].splitlines()] if listed else []
    if lines[::-1] != [set(rooms) for rooms in FLOORS]:
        sys.exit(f"the rooms of pyproject.toml, from the top, are {lines}: draw these")
    for way in WAYS:
        affine = re.findall(r"\w+\.py", way.model + way.argmax)
        own = [("trajectory", way.first), *(("affine", name) for name in affine), (way.room, way.last)]
        others = zip(("hamiltonian", "maximizer"), re.findall(r"\w+\.py", " ".join(way.others)), strict=False)
        for room, name in (*own, *others):
            if not (ROOT / "src" / "pontryagin" / room / name).is_file():
                sys.exit(f"there is no {room}/{name}: draw the file that has taken its place")


def main() -> None:
    """Draw it."""
    check()
    places: Places = {}
    bottom = 0.12
    for rooms in FLOORS:
        top = bottom + (TALL if "affine" in rooms else LOW)
        places |= dict.fromkeys(rooms, (bottom, top))
        bottom = top + 0.055
    height = bottom + 1.27
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, height))
    axes.axis("off")
    sentence(axes, height - 0.36)
    say(axes, LEFT + 0.1, bottom + 0.1, "the rooms: each imports only from those below", size=9)
    for rooms in FLOORS:
        floor(axes, rooms, places)
    for way in WAYS:
        draw(axes, way, places, bottom)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=150, metadata={"Software": None})


def sentence(axes: Axes, y: float) -> None:
    """The four steps, with arrows between."""
    x = LEFT
    for number, (word, color) in STEPS.items():
        length = 0.62 + 0.112 * len(word)
        box(axes, x, y - 0.2, length, 0.4, color)
        say(axes, x + length / 2, y, f"{number}  {word}", "white", 12.5, weight="bold", ha="center")
        x += length
        if number < len(STEPS):
            axes.add_patch(FancyArrowPatch((x + 0.05, y), (x + 0.4, y), arrowstyle="-|>", mutation_scale=14,
                                           color=INK, shrinkA=0, shrinkB=0))
            x += 0.45
    say(axes, x + 0.15, y, "an iteration of the\nmaximum principle", size=9.5)


def floor(axes: Axes, rooms: dict[str, str], places: Places) -> None:
    """The rooms of a floor side by side, and the band on which the ways cross it."""
    bottom, top = places[next(iter(rooms))]
    color = HEART if "affine" in rooms else PAPER
    box(axes, WALL + 0.06, bottom, RIGHT - WALL - 0.06, top - bottom, color)
    width = (WALL - LEFT - 0.05 * (len(rooms) - 1)) / len(rooms)
    for place, (name, line) in enumerate(rooms.items()):
        x = LEFT + place * (width + 0.05)
        box(axes, x, bottom, width, top - bottom, color)
        if name == "affine":
            say(axes, x + 0.1, top - 0.24, name, size=13, weight="bold")
            say(axes, x + 0.1, bottom + 0.34, line, size=9)
        else:
            y = (bottom + top) / 2
            word = say(axes, x + 0.1, y, name, size=10.5, weight="bold")
            axes.annotate(line, xy=(1, y - below(10.5)), xycoords=(word, "data"), xytext=(7, 0), size=8.6,
                          textcoords="offset points", color=INK, va="baseline")


def draw(axes: Axes, way: Way, places: Places, roof: float) -> None:
    """A way, its four stations with their files, and its name above the roof."""

    def middle(room: str) -> float:
        return sum(places[room]) / 2

    left, right, start, end = way.left, way.right, middle("trajectory"), middle(way.room)
    low = places["affine"][1] - 0.24
    corners = [(left, start), (left, low), (right, low), (right, end)]
    stroke(axes, corners, (2, 3, 4), linewidth=3)
    if way.others:
        beside = [(left, start), (left, middle("hamiltonian")), (left, middle("maximizer")), (left, end),
                  (right, end)]
        stroke(axes, beside, (2, 3, 4, 4), linewidth=1.8, linestyle=(0, (2, 1.3)))
        say(axes, left + 0.1, middle("distributed"), "other stages", GREY, style="italic")
        for number, (x, y), name in zip((2, 3), beside[1:], way.others, strict=False):
            station(axes, number, x, y)
            say(axes, x + 0.17, y, name, STEPS[number][1])
    for number, (x, y) in enumerate(corners, 1):
        station(axes, number, x, y)
    say(axes, left + 0.17, start, way.first, STEPS[1][1])
    say(axes, left - 0.1, low - 0.26, way.model, STEPS[2][1])
    say(axes, left - 0.1, low - 0.46, way.argmax, STEPS[3][1])
    side, align = (-0.17, "right") if way is WAYS[-1] else (0.17, "left")
    say(axes, right + side, end, f"{way.last}\n{way.does}", STEPS[4][1], ha=align)
    say(axes, left - 0.1, roof + 0.33, way.name, size=13, weight="bold")
    say(axes, left - 0.1, roof + 0.1, way.takes, size=9)


def stroke(axes: Axes, corners: list[Point], steps: tuple[int, ...], **style: Any) -> None:
    """From corner to corner, each part in the color of the step that it leads to."""
    for (x, y), (to_x, to_y), number in zip(corners, corners[1:], steps, strict=False):
        axes.plot([x, to_x], [y, to_y], color=STEPS[number][1], zorder=2, **style)


def station(axes: Axes, number: int, x: float, y: float) -> None:
    """A numbered dot."""
    axes.plot([x], [y], marker="o", markersize=15, color=STEPS[number][1], markeredgecolor="white",
              markeredgewidth=1.2, zorder=3)
    say(axes, x, y, str(number), "white", 9.5, weight="bold", ha="center", zorder=4)


def say(axes: Axes, x: float, y: float, text: str, color: str = INK, size: float = 8.6, **style: Any) -> Any:
    """Text whose middle is at this height; small letters of one line are half as high as its size."""
    if "\n" in text:
        return axes.text(x, y, text, color=color, size=size, va="center", linespacing=1.2, **style)
    return axes.text(x, y - below(size), text, color=color, size=size, va="baseline", **style)


def below(size: float) -> float:
    """From the middle of a line of text down to its baseline, inches."""
    return 0.32 * size / 72


def box(axes: Axes, x: float, y: float, width: float, height: float, color: str) -> None:
    """With round corners."""
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.05",
                                  facecolor=color, edgecolor="none", zorder=1))


if __name__ == "__main__":
    main()
