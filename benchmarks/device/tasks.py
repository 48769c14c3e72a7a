"""Networks with their batches: of images, of bytes of text, of tokens drawn at random."""

import os
import random
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from benchmarks.device.networks import LanguageModel, VisionTransformer, resnet
from pontryagin.optim import EMSA
from pontryagin.run.data.idx import read_idx

Batch = tuple[Tensor, Tensor]
_DOCS = Path(__file__).resolve().parents[2] / "docs"


@dataclass
class Task:
    """A network and its batches: draw trains; held and probe are fixed, of other and of training samples.

    share: of the time for races; 0 is for costs alone.
    """

    device: torch.device
    name: str
    build: Callable[[], nn.Module]
    draw: Callable[[Generator], Batch]
    held: list[Batch]
    probe: list[Batch]
    half: bool
    share: float
    channels_last: bool = False
    betas: tuple[float, float] = (0.9, 0.95)

    def generator(self, seed: int) -> Generator:
        """Of batches."""
        return Generator(device=self.device).manual_seed(seed)

    def model(self, seed: int = 0) -> nn.Module:
        """A fresh one on the device, the same for the same seed."""
        torch.manual_seed(seed)
        with self.device:
            model = self.build()
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def precision(self) -> Any:
        """That of its passes."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.half else nullcontext()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross entropy."""
        with self.precision():
            scores = model(batch[0])
            return functional.cross_entropy(scores.flatten(0, -2).float(), batch[1].flatten())

    def evaluate(self, model: nn.Module, optimizer: Any) -> dict[str, float]:
        """Losses and accuracy on held-out and on training samples; EMSA's of its averages."""
        averaged = isinstance(optimizer, EMSA)
        if averaged:
            optimizer.eval()
        model.eval()
        held, accuracy = self._mean(model, self.held)
        probe, _ = self._mean(model, self.probe)
        model.train()
        if averaged:
            optimizer.train()
        return {"held": held, "train": probe, "accuracy": accuracy}

    @torch.no_grad()
    def _mean(self, model: nn.Module, batches: list[Batch]) -> tuple[float, float]:
        found = []
        for x, y in batches:
            with self.precision():
                scores = model(x).flatten(0, -2).float()
            right = (scores.argmax(-1) == y.flatten()).float().mean()
            found.append(torch.stack([functional.cross_entropy(scores, y.flatten()), right]))
        loss, accuracy = torch.stack(found).mean(0).tolist()
        return loss, accuracy


@dataclass(frozen=True)
class Sizes:
    """Of the real run, or of the rehearsal."""

    images: int = 256
    vit_images: int = 512
    sequences: int = 32
    context: int = 512
    text: int = 48 << 20
    held: int = 4
    warm: int = 24
    timed: int = 64
    rival: int = 40
    race: int = 3000
    resnet: tuple[int, int] = (64, 2)
    vit: tuple[int, int, int] = (384, 12, 6)
    lm: tuple[int, int, int] = (768, 12, 12)
    vocabulary: int = 32768


TINY = Sizes(8, 8, 4, 32, 1 << 20, 1, 12, 12, 3, 5, (8, 1), (16, 2, 2), (32, 2, 2), 512)


def image_files() -> tuple[list[Tensor], str]:
    """Train images and labels, test images and labels: of files, or synthetic."""
    root = os.environ.get("PONTRYAGIN_DATA", "")
    names = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    for folder in (Path(root) / "fashion-mnist", Path(root) / "mnist", Path(root)) if root else ():
        paths = [next((p for p in (folder / name, folder / f"{name}.gz") if p.exists()), None)
                 for name in names]
        if all(paths):
            return [read_idx(path) for path in paths if path], str(folder)
    generator = Generator().manual_seed(0)
    shapes = 255 * torch.rand(10, 28, 28, generator=generator)
    found: list[Tensor] = []
    for count in (60000, 10000):
        labels = torch.randint(10, (count,), generator=generator)
        noise = 255 * torch.rand(count, 28, 28, generator=generator)
        found += [(0.35 * shapes[labels] + 0.65 * noise).to(torch.uint8), labels.to(torch.uint8)]
    return found, "synthetic"


def text_bytes(limit: int) -> tuple[Tensor, Tensor, str]:
    """Training and held-out bytes of different files."""
    paths = sysconfig.get_paths()
    roots = dict.fromkeys([paths["stdlib"], paths["purelib"], "/usr/share/doc", "/usr/lib/python3",
                           str(_DOCS)])
    files = sorted({file for root in roots for file in _texts(Path(root), time.perf_counter() + 8)})
    random.Random(0).shuffle(files)
    kept, size, end = [], 0, time.perf_counter() + 20
    for file in files:
        if size >= limit or time.perf_counter() > end:
            break
        try:
            content = Path(file).read_bytes()[: 1 << 18]
        except OSError:
            continue
        kept.append(content)
        size += len(content)
    cut = max(len(kept) // 20, 1)
    train, held = (torch.frombuffer(bytearray(b"\n".join(some)), dtype=torch.uint8)
                   for some in (kept[cut:], kept[:cut]))
    return train, held, f"{len(kept)} files, {size / 2**20:.1f} MiB"


def _texts(root: Path, end: float) -> Iterator[str]:
    """Names of text files below a folder, as far as they are found in time."""
    for folder, _, names in os.walk(root):
        if time.perf_counter() > end:
            return
        for name in names:
            if name.endswith((".py", ".rst", ".txt", ".md", "copyright")):
                yield os.path.join(folder, name)


def _images(images: Tensor, labels: Tensor, chosen: Tensor) -> Batch:
    """3x32x32, each channel the same, about centred."""
    x = functional.pad(images[chosen].float().div_(255).sub_(0.29).div_(0.35), (2, 2, 2, 2))
    return x.unsqueeze(1).expand(-1, 3, -1, -1).contiguous(), labels[chosen].long()


def image_tasks(sizes: Sizes, device: torch.device) -> tuple[list[Task], str]:
    """The ResNet, the vision transformer, and the ResNet in half precision for its cost."""
    found, source = image_files()
    images, labels, test, test_labels = (each.to(device) for each in found)

    def draw(batch: int, generator: Generator) -> Batch:
        chosen = torch.randint(len(images), (batch,), generator=generator, device=device)
        return _images(images, labels, chosen)

    def fixed(images: Tensor, labels: Tensor, batch: int) -> list[Batch]:
        return [_images(images, labels, torch.arange(n * batch, (n + 1) * batch, device=device))
                for n in range(sizes.held)]

    def task(name: str, build: Callable[[], nn.Module], batch: int, half: bool, share: float,
             **more: Any) -> Task:
        held, probe = fixed(test, test_labels, 2 * batch), fixed(images, labels, 2 * batch)
        return Task(device, name, build, partial(draw, batch), held, probe, half, share, **more)

    width, depth, heads = sizes.vit
    build, betas = partial(resnet, *sizes.resnet), (0.9, 0.999)
    return [
        task("resnet", build, sizes.images, False, 0.3, betas=betas),
        task("vit", partial(VisionTransformer, width, depth, heads), sizes.vit_images, True, 0.25),
        task("resnet bf16 channels_last", build, sizes.images, True, 0, channels_last=True, betas=betas),
    ], source


def text_tasks(sizes: Sizes, device: torch.device) -> tuple[list[Task], str]:
    """The language model of bytes, and one of many tokens, drawn at random, for its cost."""
    train, held, source = text_bytes(sizes.text)
    train, held = train.to(device), held.to(device)
    width, depth, heads = sizes.lm
    steps = torch.arange(sizes.context + 1, device=device)

    def cut(text: Tensor, starts: Tensor) -> Batch:
        tokens = text[starts.unsqueeze(1) + steps].long()
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def draw(generator: Generator) -> Batch:
        last = len(train) - sizes.context - 1
        return cut(train, torch.randint(last, (sizes.sequences,), generator=generator, device=device))

    def fixed(text: Tensor) -> list[Batch]:
        starts = torch.linspace(0, len(text) - sizes.context - 2, sizes.held * sizes.sequences,
                                dtype=torch.float64)
        return [cut(text, some) for some in starts.long().to(device).chunk(sizes.held)]

    def noise(generator: Generator) -> Batch:
        shape = sizes.sequences, sizes.context + 1
        tokens = torch.randint(sizes.vocabulary, shape, generator=generator, device=device)
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    bytewise = partial(LanguageModel, 256, width, depth, heads, sizes.context)
    wordwise = partial(LanguageModel, sizes.vocabulary, width, max(depth // 2, 1), heads, sizes.context)
    return [
        Task(device, "lm", bytewise, draw, fixed(held), fixed(train), True, 0.45),
        Task(device, "lm 32k tokens", wordwise, noise, [], [], True, 0),
    ], source
