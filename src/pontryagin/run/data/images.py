"""Image data sets as tensors: digits inside scikit-learn, MNIST and Fashion-MNIST found or fetched."""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pontryagin.run.data.catalog import ImageSet, image_set
from pontryagin.run.data.fetch import fetch
from pontryagin.run.data.idx import read_idx
from pontryagin.run.data.places import cached, find, locate
from pontryagin.run.errors import need
from pontryagin.run.progress import Progress

TRAINING = 55000
"""Of the 60000 training images the first 55000 train, the last 5000 validate ([LCTE] section 5 trains on
55000)."""


class Images(NamedTuple):
    """Images (sample, 1, height, width) in [0, 1], float32, and labels (sample,), int64; digits have no
    validation set."""

    train: Float[Tensor, "sample 1 height width"]
    train_labels: Int[Tensor, " sample"]
    test: Float[Tensor, "sample 1 height width"]
    test_labels: Int[Tensor, " sample"]
    validation: Float[Tensor, "sample 1 height width"] | None = None
    validation_labels: Int[Tensor, " sample"] | None = None


def load_images(name: str, folder: str | Path | None = None, progress: Progress | None = None) -> Images:
    """`digits` (1500 for training, 297 for testing), or `mnist` / `fashion-mnist` (55000, 5000 for
    validation, 10000).

    The files are taken from `folder` or PONTRYAGIN_DATA or their subfolder of that name, the cache, the
    folder of Debian's package, or fetched into the cache, whichever has them first; their content is
    verified. Raises ExperimentError when a file is wrong or cannot be had.
    """
    if name == "digits":
        return _digits()
    wanted = image_set(name)
    train, train_labels, test, test_labels = _tensors(wanted, folder, progress)
    return Images(_pixels(train[:TRAINING]), train_labels[:TRAINING].long(), _pixels(test),
                  test_labels.long(), _pixels(train[TRAINING:]), train_labels[TRAINING:].long())


def _tensors(wanted: ImageSet, folder: str | Path | None, progress: Progress | None) -> list[Tensor]:
    place = locate(wanted, folder)
    if place is None or place == cached(wanted):
        return fetch(wanted, progress)
    return [read_idx(find(place, file) or place / file.name, file) for file in wanted.files]


def _digits() -> Images:
    found = need("sklearn.datasets", "the data set digits", "name other data").load_digits()
    order = torch.randperm(len(found.images), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(found.images / 16.0).float().unsqueeze(1)[order]
    labels = torch.from_numpy(found.target).long()[order]
    return Images(images[:1500], labels[:1500], images[1500:], labels[1500:])


def _pixels(images: Tensor) -> Tensor:
    return images.unsqueeze(1).float() / 255
