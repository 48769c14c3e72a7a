"""Images of ten classes: a random pattern of 4 x 4 coarse pixels for each, shifted, in noise."""

import torch
from torch import Generator, Tensor
from torch.nn import functional

from benchmarks.zoo.family import Batch
from benchmarks.zoo.text import FIRST, tokens

CLASSES = 10
_PATTERNS = torch.randn(CLASSES, 3, 4, 4, generator=Generator().manual_seed(21))


def pictures(generator: Generator, labels: Tensor, size: int, noise: float = 0.5,
             channels: int = 3) -> Tensor:
    """(count, channels, size, size): an image of each label."""
    clean = functional.interpolate(_PATTERNS[labels, :channels], size=size)
    shifts = torch.randint(0, size // 4, (2,), generator=generator).tolist()
    return clean.roll(shifts, (2, 3)) + noise * torch.randn(clean.shape, generator=generator)


def labelled(generator: Generator, size: int = 32, count: int = 16) -> Batch:
    """Images and their classes, under the names that transformers gives them."""
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return {"pixel_values": pictures(generator, labels, size), "labels": labels}


def small(generator: Generator) -> Batch:
    """As labelled, 16 x 16."""
    return labelled(generator, 16)


def captioned(generator: Generator) -> Batch:
    """An image of each class in random order, and eight tokens about each, every second of which names the
    class."""
    labels = torch.randperm(CLASSES, generator=generator)
    text = tokens(generator, CLASSES, 8)
    text[:, ::2] = (FIRST + labels).unsqueeze(1)
    return {"pixel_values": pictures(generator, labels, 32), "input_ids": text,
            "attention_mask": torch.ones_like(text)}


def denoised(generator: Generator) -> Batch:
    """Images with noise, and without."""
    labels = torch.randint(CLASSES, (16,), generator=generator)
    clean = pictures(generator, labels, 16, noise=0.0)
    return {"x": clean + 0.5 * torch.randn(clean.shape, generator=generator), "y": clean}


def real(generator: Generator) -> Batch:
    """Images of one channel between -1 and 1."""
    labels = torch.randint(CLASSES, (32,), generator=generator)
    return {"x": pictures(generator, labels, 16, noise=0.1, channels=1).tanh()}
