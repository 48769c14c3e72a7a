"""Figure 1 of [LCTE] as one object that can be varied, and the runs that it is compared with."""

from dataclasses import dataclass
from math import isclose
from typing import Literal

from pontryagin.run.errors import ExperimentError
from pontryagin.run.option import check_numbers, option

FIGURES = {"a": "good initialization", "b": "poor initialization"}
References = dict[str, dict[str, dict[int, float]]]
"""By figure and method: losses of others by iteration, the last one being where their run ends."""


@dataclass(frozen=True)
class SineSetup:
    """y = sin x on [-pi, pi] by x_{n+1} = x_n + delta tanh(W_n x_n + b_n), n = 0 ... N - 1, T = N delta.

    x_0 holds the input in all components, the prediction is the sum of x_N. J = mean squared error
    + reg/2 sum_n |theta_n|^2, reg being that of the authors' released code: it is not multiplied by delta. As
    it stands it is the paper's Figure 1; `replace(SineSetup(), layers=40)` varies it. Raises ExperimentError.
    """

    figures: tuple[str, ...] = option("a, a good initialization (W truncated normal, b constant), or b, a "
                                      "poor one (zeros plus noise), or both with commas", tuple(FIGURES))
    layers: int = option("N", 20, least=1, most=10_000)
    width: int = option("components of the state", 5, least=1, most=1000)
    end: float | None = option("T; by default 5, or N delta where --step-size is given", None, least=1e-6,
                               most=1e6)
    step_size: float | None = option("delta; by default T / N", None, least=1e-6, most=1e6)
    samples: int = option("of the train and of the test set", 1000, least=1, most=10**6)
    weight_scale: float = option("(a): standard deviation of W, cut at twice that", 0.1, least=0, most=100)
    bias: float = option("(a): b of every layer", 0.1, least=-100, most=100)
    noise: float = option("(b): size of the noise in all controls, the same for every method", 5e-3, least=0,
                          most=100)
    distribution: Literal["normal", "uniform"] = option(
        "of all noise: normal with this standard deviation, or uniform on [-size, size]", "normal")
    argmax_noise: float = option("size of the noise in the controls from which emsa-paper begins each argmax",
                                 0.0, least=0, most=100)
    regularizer: float = option("reg of reg/2 |theta|^2 in every layer, not multiplied by delta", 0.0,
                                least=0, most=1e6)
    rho: float = option("penalty of emsa-paper, in the paper's units", 1.0, least=0, most=1e9)
    inner_iterations: int = option("iterations of L-BFGS in each argmax of emsa-paper and msa", 10, least=1)
    coarse_loss: float = option("J at which emsa-multilevel halves its steps", 1e-4, least=0, most=1e6)
    rates: dict[str, float] = option("of sgd, adagrad, adam, such as --rates.adam 0.01; not tuned", {})

    def __post_init__(self) -> None:
        check_numbers(self)
        if not self.figures or (wrong := set(self.figures) - FIGURES.keys()):
            raise ExperimentError(f"--figures: expected {', '.join(FIGURES)}, found "
                                  f"{', '.join(sorted(wrong)) if self.figures else 'none'}")
        if self.end is not None and self.step_size is not None and not isclose(
                self.end, self.layers * self.step_size, rel_tol=1e-9):
            raise ExperimentError(f"--end {self.end:g}: expected {self.layers} layers times --step-size "
                                  f"{self.step_size:g}; leave one of the three out")
        for method, rate in self.rates.items():
            if method not in ("sgd", "adagrad", "adam") or not 0 < rate < 1e9:
                raise ExperimentError(f"--rates: expected a rate > 0 of sgd, adagrad or adam, found {rate:g} "
                                      f"of {method}")

    @property
    def delta(self) -> float:
        """T / N."""
        return (5.0 if self.end is None else self.end) / self.layers if self.step_size is None else (
            self.step_size)

    @property
    def duration(self) -> float:
        """T."""
        return self.layers * self.delta

    @property
    def entries(self) -> int:
        """Of the control of a layer: W by rows, then b."""
        return self.width * (self.width + 1)


AUTHORS_RATES = {"sgd": 0.1, "adagrad": 0.1, "adam": 0.005}
SETUPS = {
    "figure-1": SineSetup(),
    "released": SineSetup(("b",), samples=100, distribution="uniform", argmax_noise=5e-3, regularizer=1e-3,
                          rates=AUTHORS_RATES),
    "released-1000": SineSetup(("a",), distribution="uniform", argmax_noise=5e-3, regularizer=1e-3,
                               rates=AUTHORS_RATES),
    "released-1000-plain": SineSetup(("a",), distribution="uniform", argmax_noise=5e-3, rates=AUTHORS_RATES),
}
"""The paper's figure, and the authors' released code: its default, and its network on the paper's samples
with and without its regularizer."""

_FIGURE_1: References = {
    "a": {"emsa-paper": {500: 0.03}, "adam": {500: 0.04}, "adagrad": {500: 0.055}, "sgd": {500: 0.07}},
    "b": {"emsa-paper": {2000: 0.009}, "adam": {10000: 0.007}},
}
_READ = "Figure 1 of the paper, read off its plots"
_RUN = "the authors' released code, run with TensorFlow 2.15"
_KNOWN: list[tuple[str, str, References]] = [
    ("figure-1", _READ, _FIGURE_1),
    ("released", _RUN, {"b": {"emsa-paper": {100: 0.0031, 500: 0.0011}}}),
    ("released-1000", _RUN, {"a": {"emsa-paper": {200: 0.027, 500: 0.0089}}}),
    ("released-1000-plain", _RUN, {"a": {"emsa-paper": {50: 0.14, 100: 0.51, 200: 0.018, 500: 0.0016}}}),
]


def references(setup: SineSetup) -> tuple[str, References]:
    """Whose losses a setup is compared with, and these; none of one that was varied. Mean squared errors,
    without the regularizer."""
    for name, source, known in _KNOWN:
        if SETUPS[name] == setup:
            return source, known
    return "", {}
