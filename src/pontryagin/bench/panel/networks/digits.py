"""MNIST's training images at shifted places, so that no run sees an image twice in the same way."""

from functools import cache

import torch
from torch import Generator, Tensor

from pontryagin.run.data import load_images
from pontryagin.run.trainer import Batch

SHIFT = 2
"""Pixels, either way."""


class Digits:
    """Images of 28 x 28 pixels, moved by up to SHIFT pixels along either axis, and their labels."""

    def __init__(self, folder: str | None) -> None:
        found = load_images("mnist", folder)
        pixels = (found.train.squeeze(1) * 255).round().to(torch.uint8)
        self.mean, self.deviation = found.train.mean().item(), found.train.std().item()
        self.labels = found.train_labels
        padded = torch.nn.functional.pad(pixels, (SHIFT,) * 4)
        self._windows = padded.unfold(1, 28, 1).unfold(2, 28, 1)  # image, place, place, row, column

    def pixels(self, generator: Generator, number: int) -> tuple[Tensor, Tensor]:
        """Images (number, 1, 28, 28) in [0, 1], and labels."""
        rows = torch.randint(len(self.labels), (number,), generator=generator)
        down, right = torch.randint(2 * SHIFT + 1, (2, number), generator=generator)
        return self._windows[rows, down, right].unsqueeze(1) / 255, self.labels[rows]

    def labelled(self, generator: Generator, number: int) -> Batch:
        """Images with mean 0 and deviation 1 over all pixels, and labels."""
        pixels, labels = self.pixels(generator, number)
        return (pixels - self.mean) / self.deviation, labels


digits = cache(Digits)
"""By folder."""
