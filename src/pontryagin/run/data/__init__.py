"""Data sets: found on this machine or fetched from public mirrors, verified, as tensors."""

from pontryagin.run.data.images import Images, load_images
from pontryagin.run.data.text import load_text

__all__ = ["Images", "load_images", "load_text"]
