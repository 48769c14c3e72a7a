"""The networks of `pontryagin bench optimizers`, on which EMSA's defaults were chosen: shown, not counted."""

from collections.abc import Callable

from torch import Generator, nn

from pontryagin.bench.panel.network import Network, Work
from pontryagin.bench.panel.networks.digits import digits
from pontryagin.bench.panel.networks.text import on_text
from pontryagin.run.models import CharacterModel, autoencoder, mlp, residual_cnn
from pontryagin.run.objective import OBJECTIVES
from pontryagin.run.trainer import Batch

SHAPE = (1, 28, 28)


def _classify(build: Callable[[], nn.Module]) -> Callable[[str | None], Work]:
    return lambda folder: Work(build, digits(folder).labelled, 100, OBJECTIVES["cross-entropy"])


def _reconstruct(folder: str | None) -> Work:
    def images(generator: Generator, number: int) -> Batch:
        pixels, _ = digits(folder).pixels(generator, number)
        return pixels, pixels.flatten(1)

    return Work(lambda: autoencoder(SHAPE), images, 200, OBJECTIVES["binary-cross-entropy"])


TUNED_ON = (
    Network("cnn", "the paper's CNN", _classify(residual_cnn), tuned_on=True),
    Network("mlp", "MLP", _classify(lambda: mlp(SHAPE, 10)), tuned_on=True),
    Network("autoencoder", "autoencoder", _reconstruct, tuned_on=True),
    Network("transformer", "GPT", lambda _: on_text(CharacterModel), tuned_on=True),
)
