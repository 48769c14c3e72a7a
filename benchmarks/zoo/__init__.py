"""Families of models, made from configurations alone, each with a small task that it can learn."""

from benchmarks.zoo.adversarial import ADVERSARIAL
from benchmarks.zoo.causal import CAUSAL
from benchmarks.zoo.family import Batch, Family
from benchmarks.zoo.masked import MASKED
from benchmarks.zoo.plain_images import PLAIN_IMAGES
from benchmarks.zoo.plain_text import PLAIN_TEXT
from benchmarks.zoo.plain_vectors import PLAIN_VECTORS
from benchmarks.zoo.sequences import SEQUENCES
from benchmarks.zoo.vision import VISION

FAMILIES: dict[str, Family] = {**CAUSAL, **MASKED, **SEQUENCES, **VISION, **PLAIN_TEXT, **PLAIN_IMAGES,
                               **ADVERSARIAL, **PLAIN_VECTORS}

__all__ = ["FAMILIES", "Batch", "Family"]
