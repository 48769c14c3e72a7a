"""Waves: sounds to be written down, and series to be continued."""

import math

import torch
from torch import Generator, Tensor

from benchmarks.zoo.family import Batch
from benchmarks.zoo.text import FIRST

_TONES = 8


def _noisy(signal: Tensor, generator: Generator, noise: float = 0.1) -> Tensor:
    return signal + noise * torch.randn(signal.shape, generator=generator)


def spoken(generator: Generator) -> Batch:
    """Four tones of 160 samples, one after the other: which?"""
    labels = torch.randint(_TONES, (8, 4), generator=generator)
    frequency = 0.02 * 1.4 ** labels.unsqueeze(2)
    sound = torch.sin(2 * math.pi * frequency * torch.arange(160)).flatten(1)
    return {"input_values": _noisy(sound, generator), "labels": FIRST + labels}


def spectrogram(generator: Generator) -> Batch:
    """(8, 16 bands, 64 times): each of eight tones is a bump of energy that moves up for eight times."""
    labels = torch.randint(_TONES, (8, 8), generator=generator)
    center = (2.0 * labels.repeat_interleave(8, 1)).unsqueeze(1)
    bands = torch.arange(16).view(1, 16, 1)
    return {"input_features": _noisy(torch.exp(-((bands - center) ** 2)), generator),
            "labels": FIRST + labels}


def waves(generator: Generator, count: int, length: int) -> Tensor:
    """(count, length, 3) sums of two sines each."""
    period = 8 + 24 * torch.rand(count, 1, 3, 2, generator=generator)
    phase = 2 * math.pi * torch.rand(count, 1, 3, 2, generator=generator)
    time = torch.arange(length).view(1, length, 1, 1)
    return _noisy(torch.sin(2 * math.pi * time / period + phase).sum(3), generator, 0.05)


def forecast(generator: Generator) -> Batch:
    """Forty-eight values of three series, and the next eight."""
    series = waves(generator, 16, 56)
    return {"past_values": series[:, :48], "future_values": series[:, 48:]}


def dated_forecast(generator: Generator) -> Batch:
    """As forecast, with a feature of time, for models with lags of up to seven."""
    series = waves(generator, 16, 56)
    time = (torch.arange(56) / 56).view(1, 56, 1).expand(16, 56, 1)
    return {"past_values": series[:, :48], "past_time_features": time[:, :48],
            "past_observed_mask": torch.ones(16, 48, 3),
            "future_values": series[:, 48:], "future_time_features": time[:, 48:]}
