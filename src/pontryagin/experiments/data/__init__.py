"""Data sets: found on this machine or fetched from public mirrors, verified, as tensors."""

from pontryagin.experiments.data.images import Images, load_images
from pontryagin.experiments.data.text import load_text

__all__ = ["Images", "load_images", "load_text"]
