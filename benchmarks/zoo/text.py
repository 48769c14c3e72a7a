"""Text to be continued, from a Markov chain in which each token has four successors; and text to be
understood, about one of twelve topics, each with sixteen words of its own. Tokens below FIRST are special:
PAD, START, END and MASK."""

import torch
from torch import Generator, Tensor

from benchmarks.zoo.family import Batch

VOCABULARY, FIRST = 200, 4
PAD, START, END, MASK = range(FIRST)
_SUCCESSION = torch.tensor([0.6, 0.2, 0.15, 0.05])


def _successors(seed: int) -> Tensor:
    """Four of each token, frequent ones more often."""
    frequency = 1 / torch.arange(1.0, VOCABULARY - FIRST + 1)
    drawn = torch.multinomial(frequency, 4 * VOCABULARY, replacement=True,
                              generator=Generator().manual_seed(seed))
    return FIRST + drawn.view(VOCABULARY, 4)


_CHAINS = _successors(11), _successors(12)


def tokens(generator: Generator, count: int = 8, length: int = 32, chain: int = 0) -> Tensor:
    """(count, length) of a chain."""
    found = [torch.randint(FIRST, VOCABULARY, (count,), generator=generator)]
    for _ in range(length - 1):
        which = torch.multinomial(_SUCCESSION, count, replacement=True, generator=generator)
        found.append(_CHAINS[chain][found[-1], which])
    return torch.stack(found, 1)


_TOPICS = FIRST + torch.arange(12 * 16).view(12, 16)
_FREQUENCY = 1 / torch.arange(1.0, 17)


def about_topics(generator: Generator, count: int = 8, length: int = 32) -> Tensor:
    """(count, length) words, each text about a topic."""
    topics = _TOPICS[torch.randint(len(_TOPICS), (count,), generator=generator)]
    words = torch.multinomial(_FREQUENCY.expand(count, -1), length, replacement=True, generator=generator)
    return topics.gather(1, words)


def continued(generator: Generator) -> Batch:
    """Text to be continued: the model shifts the labels itself."""
    text = tokens(generator)
    return {"input_ids": text, "labels": text}


def masked(generator: Generator) -> Batch:
    """Text of which every fifth token is hidden and asked for."""
    text = about_topics(generator)
    hidden = torch.rand(text.shape, generator=generator) < 0.2
    return {"input_ids": text.masked_fill(hidden, MASK), "labels": text.masked_fill(~hidden, -100)}


def replaced(generator: Generator) -> Batch:
    """Text of which every fifth token is another one: which?"""
    text = about_topics(generator)
    others = torch.randint(FIRST, VOCABULARY, text.shape, generator=generator)
    given = torch.where(torch.rand(text.shape, generator=generator) < 0.2, others, text)
    return {"input_ids": given, "labels": (given != text).float()}


def classified(generator: Generator) -> Batch:
    """Text of one of two chains: of which?"""
    labels = torch.randint(2, (16,), generator=generator)
    both = tokens(generator, 16), tokens(generator, 16, chain=1)
    return {"input_ids": torch.where(labels.bool().unsqueeze(1), both[1], both[0]), "labels": labels}


def copied(generator: Generator) -> Batch:
    """Text to be written once more."""
    text = tokens(generator, 8, 16)
    return {"input_ids": text, "labels": text}
