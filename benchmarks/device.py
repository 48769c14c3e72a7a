"""EMSA on a GPU, beside fused AdamW and Muon: cost, device synchronizations, memory, loss on the clock.

    python -m benchmarks.device --out FOLDER [--minutes 9] [--parts cost,race,profile]
    python -m benchmarks.device --rehearse            # tiny sizes on a CPU

Networks: a ResNet-18 with batch norm, a vision transformer (bfloat16 autocast), a language model of bytes
(likewise); for cost alone the ResNet in bfloat16 and channels_last too, and a model of 32,768 tokens.
Images are those of MNIST's kind in $PONTRYAGIN_DATA (fashion-mnist, else mnist), else synthetic; text is what
Python's installation and /usr/share/doc hold. All methods start from equal weights and see equal batches.

Parts, in this order; each is written when it is done, and skipped with a line when no time is left for it:

cost     medians over steps, by CUDA events, of forward and backward pass alone, AdamW, Muon, and EMSA by kind
         of step (ordinary, probe, refresh: some are forced), once more with its products in TF32; peak
         memory; synchronizations by call site
race     rates fall linearly to 0 over as many steps as time allows, the same for all methods; held-out and
         train loss at twenty points (untimed); rivals have three rates and a warm-up of a twentieth
profile  torch.profiler's tables of ordinary and refresh steps of the language model

Files: steps.csv, costs.csv, syncs.csv, curves.csv, results.json, profile.txt, report.md.
"""

import csv
import gc
import json
import math
import os
import random
import re
import sys
import sysconfig
import time
import traceback
import warnings
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from pontryagin.optim import EMSA
from pontryagin.optim.schedule import is_due, is_probe_due
from pontryagin.run.baselines.muon import Muon as OwnMuon
from pontryagin.run.baselines.muon import Several

DEVICE = torch.device("cuda")


def _age() -> float:
    """Seconds since the process began, where the system tells: imports take time too."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
    return age if 0 < age < 300 else 0.0


_BEGAN = time.perf_counter() - _age()
_REPOSITORY = Path(__file__).resolve().parents[1]
_POINTS = 20
"""Evaluations of a run."""
_WARM_UP = 0.05
"""Part of the steps over which the rates of AdamW and Muon rise."""
_RATES = {"AdamW": (1e-3, 3e-4, 3e-3), "Muon": (3e-3, 1e-3, 1e-2)}
"""Muon's are for steps of the size of AdamW's; the rest of the parameters gets AdamW at no more than 3e-3."""
_PROFILE_SECONDS, _RACE_SECONDS, _COST_SECONDS = 40.0, 45.0, 25.0
"""What is kept for the profile, and the least that a race or the costs of a network are begun with."""
_KINDS = ("ordinary", "probe", "refresh")
_GIB = 2.0**30
_FILES = ("steps.csv", "costs.csv", "syncs.csv", "curves.csv", "results.json", "profile.txt", "report.md")


# Time and output -------------------------------------------------------------------------------------------


class NoTimeError(Exception):
    """There is no time left for a part."""


class Deadline:
    """Seconds left of the whole run."""

    def __init__(self, minutes: float) -> None:
        self._end = _BEGAN + 60 * minutes

    def left(self, reserve: float = 0.0) -> float:
        """Until the end, less what is reserved for others."""
        return self._end - time.perf_counter() - reserve

    def need(self, seconds: float, reserve: float = 0.0) -> None:
        """Raise NoTimeError if there is less."""
        if (left := self.left(reserve)) < seconds:
            raise NoTimeError(f"{left:.0f} s left, {seconds:.0f} s needed")


class Output:
    """The files; everything is on the disk at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            (folder / name).unlink(missing_ok=True)
        self.results: dict[str, Any] = {"costs": [], "races": [], "failures": []}
        self.tables: list[str] = []

    def rows(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        """Append to a csv file, whose first rows name its columns."""
        if not rows:
            return
        path = self.folder / name
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerows(rows)

    def text(self, name: str, text: str) -> None:
        """Append to a text file."""
        with (self.folder / name).open("a") as file:
            file.write(text)

    def save(self) -> None:
        """results.json and report.md, as far as they are known."""
        (self.folder / "results.json").write_text(json.dumps(self.results, indent=1, default=str))
        (self.folder / "report.md").write_text(self.report())

    def report(self) -> str:
        """The tables, and what failed."""
        failures = [f"- {one['part']}: {one['error']}" for one in self.results["failures"]]
        return (
            "\n\n".join(
                [*self.tables, *(["## Failed or skipped\n\n" + "\n".join(failures)] if failures else [])]
            )
            + "\n"
        )

    def say(self, line: str) -> None:
        """On stdout, with the seconds since the beginning."""
        print(f"[{time.perf_counter() - _BEGAN:6.1f}] {line}", flush=True)


@contextmanager
def part(out: Output, name: str) -> Iterator[None]:
    """What fails inside is written down, and the next part goes on."""
    out.say(f"{name}: begins")
    try:
        yield
    except NoTimeError as error:
        out.say(f"{name}: skipped, {error}")
        out.results["failures"].append({"part": name, "error": f"skipped: {error}"})
    except Exception as error:  # noqa: BLE001
        out.say(f"{name}: {type(error).__name__}: {error}")
        traceback.print_exc(file=sys.stdout)
        line = next(iter(str(error).splitlines()), "")
        out.results["failures"].append(
            {"part": name, "error": f"{type(error).__name__}: {line}", "traceback": traceback.format_exc()}
        )
    finally:
        out.save()
        clean()


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """In markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return f"## {title}\n\n" + "\n".join(
        "| " + " | ".join(str(cell) for cell in line) + " |" for line in lines
    )


def number(value: float | None, digits: int = 3) -> str:
    """In a table; a dash for what is unknown."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


# The device ------------------------------------------------------------------------------------------------


def on_gpu() -> bool:
    """Whether there is a GPU, and it is used."""
    return DEVICE.type == "cuda"


def wait() -> None:
    """Until the device is idle."""
    if on_gpu():
        torch.cuda.synchronize()


def clean() -> None:
    """Give back what is no longer used."""
    gc.collect()
    if on_gpu():
        torch.cuda.empty_cache()


def forget_peak() -> None:
    if on_gpu():
        torch.cuda.reset_peak_memory_stats()


def peak() -> float:
    """GiB since forget_peak, 0 on a CPU."""
    return torch.cuda.max_memory_allocated() / _GIB if on_gpu() else 0.0


class Marks:
    """Points in time of the device's work; the host does not wait for them."""

    def __init__(self) -> None:
        self._marks: list[Any] = []

    def mark(self) -> None:
        """Now, in the order of the device's work."""
        if on_gpu():
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def milliseconds(self) -> list[float]:
        """From each mark to the next."""
        wait()
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return [one.elapsed_time(other) if on_gpu() else 1e3 * (other - one) for one, other in pairs]


class Syncs:
    """Counts operations that wait for the device, by phase and call site, from torch's debug mode."""

    def __init__(self) -> None:
        self.phase = ""
        self.sites: Counter[tuple[str, str, str]] = Counter()
        """By phase, the innermost line in this repository, and the line that torch names."""

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Every such warning inside; without a GPU there are none."""
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = self._shown  # put back by catch_warnings
            if on_gpu() and hasattr(torch.cuda, "set_sync_debug_mode"):
                torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                if on_gpu() and hasattr(torch.cuda, "set_sync_debug_mode"):
                    torch.cuda.set_sync_debug_mode("default")

    def _shown(self, message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
        if "synchronizing" not in str(message) or "prototype" in str(message):
            return
        self.sites[self.phase, _own_line(), _short(filename, lineno)] += 1


def _own_line() -> str:
    """The innermost line of pontryagin's that is running in this thread, else of this file's."""
    stack = [frame for frame in traceback.extract_stack() if str(_REPOSITORY) in frame.filename]
    own = [frame for frame in stack if "pontryagin" in frame.filename.replace(str(_REPOSITORY), "")]
    outside = [frame for frame in stack if frame.name not in ("_shown", "_own_line")]
    frame = (own or outside or traceback.extract_stack())[-1]
    return f"{_short(frame.filename, frame.lineno or 0)} {frame.name}: {(frame.line or '').strip()[:110]}"


def _short(filename: str, line: int) -> str:
    path = filename.replace(f"{_REPOSITORY}{os.sep}", "")
    return f"{path.rpartition('site-packages' + os.sep)[2]}:{line}"


# Networks --------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm, beside the identity or a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(2))
        self.beside: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.beside = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        z = self.norms[0](self.first(x)).relu()
        return (self.norms[1](self.second(z)) + self.beside(x)).relu()


def resnet(width: int = 64, blocks: int = 2) -> nn.Module:
    """ResNet-18 for 3x32x32 images, ten classes."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for stage in range(4):
        for block in range(blocks):
            layers.append(Residual(inputs, width << stage, 2 if stage and not block else 1))
            inputs = width << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


class Block(nn.Module):
    """Attention and a perceptron, normed first."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        samples, tokens, width = x.shape
        qkv = (
            self.qkv(self.norm1(x))
            .view(samples, tokens, 3, self.heads, width // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        seen = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=self.causal)
        x = x + self.out(seen.transpose(1, 2).reshape(samples, tokens, width))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class VisionTransformer(nn.Module):
    """Patches of 3x32x32 images, mean over tokens, ten classes."""

    def __init__(self, width: int = 384, depth: int = 12, heads: int = 6, patch: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.places = nn.Parameter(0.02 * torch.randn((32 // patch) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, heads, False) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(tokens)).mean(1))


class LanguageModel(nn.Module):
    """GPT-2's kind; head and table are not tied."""

    def __init__(
        self, vocabulary: int = 256, width: int = 768, depth: int = 12, heads: int = 12, context: int = 512
    ) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads, True) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        initialize(self)
        for block in self.blocks:
            for last in (block.out, block.down):
                nn.init.normal_(last.weight, std=0.02 / (2 * depth) ** 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.blocks(self.tokens(tokens) + self.places(places))))


def initialize(model: nn.Module) -> None:
    """As GPT-2 does."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


# Data and tasks --------------------------------------------------------------------------------------------

Batch = tuple[Tensor, Tensor]


@dataclass
class Task:
    """A network and its batches: draw trains; held and probe are fixed, of other and of training samples.

    share: of the time for races; 0 is for costs alone.
    """

    name: str
    build: Callable[[], nn.Module]
    draw: Callable[[Generator], Batch]
    held: list[Batch]
    probe: list[Batch]
    half: bool
    share: float
    channels_last: bool = False
    betas: tuple[float, float] = (0.9, 0.95)

    def model(self, seed: int = 0) -> nn.Module:
        """A fresh one on the device, the same for the same seed."""
        torch.manual_seed(seed)
        with DEVICE:
            model = self.build()
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def precision(self) -> Any:
        """That of its passes."""
        return torch.autocast(DEVICE.type, dtype=torch.bfloat16) if self.half else nullcontext()

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
    from pontryagin.run.data.idx import read_idx

    root = os.environ.get("PONTRYAGIN_DATA", "")
    names = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    for folder in (Path(root) / "fashion-mnist", Path(root) / "mnist", Path(root)) if root else ():
        paths = [
            next((p for p in (folder / name, folder / f"{name}.gz") if p.exists()), None) for name in names
        ]
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
    roots = dict.fromkeys(
        [paths["stdlib"], paths["purelib"], "/usr/share/doc", "/usr/lib/python3", str(_REPOSITORY / "docs")]
    )
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
    train, held = (
        torch.frombuffer(bytearray(b"\n".join(some)), dtype=torch.uint8) for some in (kept[cut:], kept[:cut])
    )
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


def image_tasks(sizes: Sizes) -> tuple[list[Task], str]:
    """The ResNet, the vision transformer, and the ResNet in half precision for its cost."""
    found, source = image_files()
    images, labels, test, test_labels = (each.to(DEVICE) for each in found)

    def draw(batch: int, generator: Generator) -> Batch:
        return _images(
            images, labels, torch.randint(len(images), (batch,), generator=generator, device=DEVICE)
        )

    def fixed(images: Tensor, labels: Tensor, batch: int) -> list[Batch]:
        return [
            _images(images, labels, torch.arange(n * batch, (n + 1) * batch, device=DEVICE))
            for n in range(sizes.held)
        ]

    def task(
        name: str, build: Callable[[], nn.Module], batch: int, half: bool, share: float, **more: Any
    ) -> Task:
        held, probe = fixed(test, test_labels, 2 * batch), fixed(images, labels, 2 * batch)
        return Task(name, build, partial(draw, batch), held, probe, half, share, **more)

    width, depth, heads = sizes.vit
    betas = 0.9, 0.999
    return [
        task("resnet", partial(resnet, *sizes.resnet), sizes.images, False, 0.3, betas=betas),
        task("vit", partial(VisionTransformer, width, depth, heads), sizes.vit_images, True, 0.25),
        task(
            "resnet bf16 channels_last",
            partial(resnet, *sizes.resnet),
            sizes.images,
            True,
            0,
            channels_last=True,
            betas=betas,
        ),
    ], source


def text_tasks(sizes: Sizes) -> tuple[list[Task], str]:
    """The language model of bytes, and one of many tokens, drawn at random, for its cost."""
    train, held, source = text_bytes(sizes.text)
    train, held = train.to(DEVICE), held.to(DEVICE)
    width, depth, heads = sizes.lm
    steps = torch.arange(sizes.context + 1, device=DEVICE)

    def cut(text: Tensor, starts: Tensor) -> Batch:
        tokens = text[starts.unsqueeze(1) + steps].long()
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def draw(generator: Generator) -> Batch:
        last = len(train) - sizes.context - 1
        return cut(train, torch.randint(last, (sizes.sequences,), generator=generator, device=DEVICE))

    def fixed(text: Tensor) -> list[Batch]:
        starts = torch.linspace(
            0, len(text) - sizes.context - 2, sizes.held * sizes.sequences, dtype=torch.float64
        )
        starts = starts.long().to(DEVICE)
        return [cut(text, some) for some in starts.chunk(sizes.held)]

    def noise(generator: Generator) -> Batch:
        shape = sizes.sequences, sizes.context + 1
        tokens = torch.randint(sizes.vocabulary, shape, generator=generator, device=DEVICE)
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    bytewise = partial(LanguageModel, 256, width, depth, heads, sizes.context)
    wordwise = partial(LanguageModel, sizes.vocabulary, width, max(depth // 2, 1), heads, sizes.context)
    return [
        Task("lm", bytewise, draw, fixed(held), fixed(train), True, 0.45),
        Task("lm 32k tokens", wordwise, noise, [], [], True, 0),
    ], source


# Methods ---------------------------------------------------------------------------------------------------


class FlatMuon:
    """torch's Muon on weights of any shape, seen as matrices (output, rest) that share their storage."""

    def __init__(self, weights: Sequence[nn.Parameter], lr: float) -> None:
        self._pairs = [(weight, nn.Parameter(_matrix(weight.detach(), weight))) for weight in weights]
        matrices = [matrix for _, matrix in self._pairs]
        for weight, matrix in self._pairs:
            if weight.data_ptr() != matrix.data_ptr():
                raise ValueError(f"no view of a weight of shape {tuple(weight.shape)} is a matrix")
        self._muon = torch.optim.Muon(matrices, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        self.param_groups = self._muon.param_groups

    def zero_grad(self) -> None:
        """Of the weights."""
        for weight, _ in self._pairs:
            weight.grad = None

    def step(self) -> None:
        """Of the matrices, by the gradients of the weights."""
        for weight, matrix in self._pairs:
            matrix.grad = None if weight.grad is None else _matrix(weight.grad, weight)
        self._muon.step()


def _matrix(value: Tensor, weight: Tensor) -> Tensor:
    """What has a weight's shape as a matrix; with channels last in another order, which does not matter."""
    if weight.ndim == 4 and not weight.is_contiguous():
        value = value.permute(0, 2, 3, 1)
    return value.flatten(1)


def adamw(
    parameters: Iterable[nn.Parameter], rate: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """Fused, if it can be."""
    parameters = list(parameters)
    try:
        return torch.optim.AdamW(parameters, rate, betas=betas, weight_decay=0.0, fused=True)
    except (RuntimeError, TypeError) as error:
        print(f"AdamW(fused=True) is not to be had: {error}", flush=True)
        return torch.optim.AdamW(parameters, rate, betas=betas, weight_decay=0.0)


def muon(model: nn.Module, rate: float, betas: tuple[float, float]) -> Several:
    """Muon on all matrices and filters but the first map's, tables and the head; AdamW on the rest."""
    maps = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    head = [module for module in maps if isinstance(module, nn.Linear)][-1:]
    hidden = [module.weight for module in maps if module not in head and not _is_first(module)]
    chosen = {id(weight) for weight in hidden}
    rest = adamw((p for p in model.parameters() if id(p) not in chosen), min(rate, 3e-3), betas)
    if hasattr(torch.optim, "Muon"):
        try:
            return Several(rest, FlatMuon(hidden, rate))
        except (TypeError, ValueError) as error:
            print(f"torch.optim.Muon is not to be had: {error}", flush=True)
    return Several(rest, OwnMuon(hidden, rate))


def _is_first(module: nn.Module) -> bool:
    """Whether it sees the pixels."""
    return isinstance(module, nn.Conv2d) and module.in_channels == 3


def optimizer_of(method: str, model: nn.Module, task: Task, rate: float | None = None) -> Any:
    """By name; None for the passes alone."""
    if method.startswith("EMSA"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return EMSA(model) if rate is None else EMSA(model, lr=rate)
    if method == "AdamW":
        return adamw(model.parameters(), rate or _RATES["AdamW"][0], task.betas)
    return muon(model, rate or _RATES["Muon"][0], task.betas) if method == "Muon" else None


def kind_of(optimizer: Any) -> str:
    """Of the step that comes next."""
    if not isinstance(optimizer, EMSA):
        return "ordinary"
    group = optimizer.param_groups[0]
    if is_due(group["steps"] + 1, group["refresh_every"]):
        return "refresh"
    return "probe" if is_probe_due(group["steps"] + 1) else "ordinary"


def force(optimizer: Any) -> None:
    """Let EMSA refresh in the step after the next, which tells it anew how often to."""
    for group in optimizer.param_groups:
        group["refresh_every"] = 1


def passes(task: Task, model: nn.Module, optimizer: Any, batch: Batch) -> Tensor:
    """Forward and backward."""
    if optimizer is None:
        model.zero_grad()
    else:
        optimizer.zero_grad()
    loss = task.loss(model, batch)
    loss.backward()
    return loss.detach()


def step_of(optimizer: Any, loss: Tensor) -> None:
    """EMSA is told the loss."""
    if isinstance(optimizer, EMSA):
        optimizer.step(loss=loss)
    elif optimizer is not None:
        optimizer.step()


# Cost ------------------------------------------------------------------------------------------------------


@dataclass
class Cost:
    """Of one method on one network, by kind of step.

    steps: ms of passes and step, of the step alone, and the host's of both; peaks: GiB; syncs: mean number in
    a step; every: steps between two refreshes.
    """

    network: str
    method: str
    parameters: int = 0
    before: float = 0.0
    every: int = 0
    steps: dict[str, list[tuple[float, float, float, float]]] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    syncs: dict[str, float] = field(default_factory=dict)

    def median(self, which: int, kind: str = "ordinary") -> float:
        """0: ms an iteration, 1: of its step, 2: the host's of an iteration, 3: of its step; NaN for none."""
        found = self.steps.get(kind)
        return median(step[which] for step in found) if found else math.nan

    def steady(self, which: int = 0) -> float:
        """ms an iteration in the long run: a probe every 16 steps, a refresh every so many."""
        ordinary = self.median(which)
        if not self.every:
            return ordinary
        probe, refresh = (max(self.median(which, kind) - ordinary, 0.0) for kind in ("probe", "refresh"))
        return (
            ordinary
            + (0 if math.isnan(probe) else probe) / 16
            + (0 if math.isnan(refresh) else refresh) / self.every
        )


def measure(task: Task, method: str, sizes: Sizes, out: Output) -> Cost:
    """Time, memory and synchronizations of so many steps."""
    clean()
    forget_peak()
    cost = Cost(task.name, method, before=peak())
    model = task.model().train()
    optimizer = optimizer_of(method, model, task)
    cost.parameters = sum(map(torch.numel, model.parameters()))
    batches, is_emsa = Generator(device=DEVICE).manual_seed(0), isinstance(optimizer, EMSA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(sizes.warm if is_emsa else min(10, sizes.warm)):
            step_of(optimizer, passes(task, model, optimizer, task.draw(batches)))
        cost.every = optimizer.param_groups[0]["refresh_every"] if is_emsa else 0
        _time(cost, task, model, optimizer, batches, sizes.timed if is_emsa else sizes.rival)
    _look(cost, task, model, optimizer, batches, 20 if is_emsa else 4, out)
    _write_cost(cost, out)
    return cost


def _time(cost: Cost, task: Task, model: nn.Module, optimizer: Any, batches: Generator, count: int) -> None:
    """Device and host time of each step, never waiting; in the last quarter some refreshes are forced."""
    marks, kinds, host = Marks(), [], []
    wait()
    for n in range(count):
        batch = task.draw(batches)
        kinds.append(kind_of(optimizer))
        began = time.perf_counter()
        marks.mark()
        loss = passes(task, model, optimizer, batch)
        marks.mark()
        between = time.perf_counter()
        if isinstance(optimizer, EMSA) and n >= count * 3 // 4 and n % 4 == 0:
            force(optimizer)
        step_of(optimizer, loss)
        marks.mark()
        host.append((1e3 * (time.perf_counter() - began), 1e3 * (time.perf_counter() - between)))
    spans = marks.milliseconds()
    for n, kind in enumerate(kinds):
        forward, step = spans[3 * n], spans[3 * n + 1]
        cost.steps.setdefault(kind, []).append((forward + step, step, *host[n]))


def _look(
    cost: Cost, task: Task, model: nn.Module, optimizer: Any, batches: Generator, count: int, out: Output
) -> None:
    """Synchronizations and peak memory by kind of step; the last but few are forced to refresh."""
    found = {kind: Syncs() for kind in _KINDS}
    steps: Counter[str] = Counter()
    for n in range(count):
        batch, kind = task.draw(batches), kind_of(optimizer)
        syncs = found[kind]
        steps[kind] += 1
        wait()
        forget_peak()
        with syncs.counting():
            syncs.phase = "passes"
            loss = passes(task, model, optimizer, batch)
            syncs.phase = "step"
            if isinstance(optimizer, EMSA) and n in (count - 4, count - 2):
                force(optimizer)
            step_of(optimizer, loss)
        cost.peaks[kind] = max(cost.peaks.get(kind, 0.0), peak())
    for kind, number_of in steps.items():
        cost.syncs[kind] = found[kind].sites.total() / number_of
        out.rows(
            "syncs.csv",
            [
                {
                    "network": cost.network,
                    "method": cost.method,
                    "kind": kind,
                    "phase": phase,
                    "line": own,
                    "torch": named,
                    "per_step": times / number_of,
                }
                for (phase, own, named), times in found[kind].sites.most_common()
            ],
        )


def _write_cost(cost: Cost, out: Output) -> None:
    out.rows(
        "steps.csv",
        [
            {
                "part": "cost",
                "network": cost.network,
                "method": cost.method,
                "rate": "",
                "kind": kind,
                "ms": f"{step[0]:.4f}",
                "step_ms": f"{step[1]:.4f}",
                "host_ms": f"{step[2]:.4f}",
                "host_step_ms": f"{step[3]:.4f}",
            }
            for kind, steps in cost.steps.items()
            for step in steps
        ],
    )
    out.rows(
        "costs.csv",
        [
            {
                "network": cost.network,
                "method": cost.method,
                "parameters": cost.parameters,
                "kind": kind,
                "steps": len(cost.steps[kind]),
                "ms": cost.median(0, kind),
                "step_ms": cost.median(1, kind),
                "host_ms": cost.median(2, kind),
                "host_step_ms": cost.median(3, kind),
                "steady_ms": cost.steady(),
                "refresh_every": cost.every,
                "peak_gib": cost.peaks.get(kind),
                "before_gib": cost.before,
                "syncs": cost.syncs.get(kind),
            }
            for kind in _KINDS
            if kind in cost.steps
        ],
    )
    line = ", ".join(
        f"{kind} {cost.median(0, kind):.2f} ms (step {cost.median(1, kind):.2f}, syncs "
        f"{cost.syncs.get(kind, math.nan):.3g})"
        for kind in _KINDS
        if kind in cost.steps
    )
    out.say(f"  {cost.network}, {cost.method}: {line}")
    out.results["costs"].append(
        vars(cost)
        | {
            "steps": {kind: len(steps) for kind, steps in cost.steps.items()},
            "median": {kind: [cost.median(n, kind) for n in range(4)] for kind in cost.steps},
            "steady": cost.steady(),
        }
    )


@contextmanager
def tf32(method: str) -> Iterator[None]:
    """Products of float32 matrices in TF32, for the method that says so."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if "TF32" in method else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def costs_of(task: Task, sizes: Sizes, deadline: Deadline, out: Output) -> dict[str, Cost]:
    """All methods on one network, what is most wanted first."""
    found: dict[str, Cost] = {}
    methods = ["passes", "AdamW", "EMSA", "Muon", "EMSA, TF32"]
    for method in methods[: 4 if sizes is TINY else 5]:
        with part(out, f"cost of {method} on {task.name}"), tf32(method):
            deadline.need(
                _COST_SECONDS if method in ("passes", "EMSA") else _COST_SECONDS / 3, _PROFILE_SECONDS
            )
            found[method] = measure(task, method, sizes, out)
    return found


def cost_table(found: dict[str, dict[str, Cost]]) -> str:
    """Of all networks."""
    header = (
        "network",
        "method",
        "steps",
        "ms an iteration",
        "/ AdamW",
        "/ passes",
        "step ms",
        "host ms",
        "its step",
        "peak GiB",
        "syncs a step",
    )
    rows = []
    for network, costs in found.items():
        floor, adam = (costs[name].median(0) if name in costs else math.nan for name in ("passes", "AdamW"))
        for method, cost in costs.items():
            lines = [(kind, cost.median(0, kind)) for kind in _KINDS if kind in cost.steps]
            if cost.every:
                lines.append((f"steady, refresh every {cost.every}", cost.steady()))
            for kind, ms in lines:
                own = [number(cost.median(n, kind)) for n in (1, 2, 3)]
                more = [number(cost.peaks.get(kind), 4), number(cost.syncs.get(kind))]
                name = f"{network} ({cost.parameters / 1e6:.3g} M)"
                rows.append(
                    (name, method, kind, number(ms), number(ms / adam), number(ms / floor), *own, *more)
                )
    return table("Cost", header, rows)


def sync_table(out: Output) -> str:
    """Of EMSA's ordinary steps, by line."""
    path, found = out.folder / "syncs.csv", Counter()
    if path.exists():
        with path.open() as file:
            for row in csv.DictReader(file):
                if row["method"] == "EMSA" and row["kind"] == "ordinary":
                    found[row["network"], row["phase"], row["line"].replace("|", "/")] += float(
                        row["per_step"]
                    )
    return table(
        "Synchronizations in an ordinary step of EMSA",
        ("network", "phase", "line", "a step"),
        [(*site, number(times)) for site, times in found.items()],
    )


# Race ------------------------------------------------------------------------------------------------------


@dataclass
class Race:
    """One run: its curve, a point each of step, seconds, held-out loss, train loss, accuracy."""

    network: str
    method: str
    rate: float | None
    steps: int
    points: list[tuple[int, float, float, float, float]] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        return self.method if self.rate is None else f"{self.method} {self.rate:g}"

    def end(self, column: int = 2) -> float:
        """The last value of a column; infinite for a run that did not end."""
        complete = self.points and self.points[-1][0] == self.steps and math.isfinite(self.points[-1][column])
        return self.points[-1][column] if complete else math.inf

    def reaches(self, target: float, column: int = 2, clock: int = 1) -> float:
        """Seconds (clock 0: steps) at which a loss has fallen to a target, interpolated; NaN if never."""
        for before, after in zip(self.points, self.points[1:], strict=False):
            if after[column] <= target:
                fall = before[column] - after[column]
                part_of = min(max((before[column] - target) / fall, 0.0), 1.0) if fall > 0 else 1.0
                return before[clock] + part_of * (after[clock] - before[clock])
        return math.nan


def rate_at(step: int, steps: int, warm: bool) -> float:
    """Relative to the largest: linear to 0, for rivals after a short linear rise."""
    rise = min((step + 1) / max(_WARM_UP * steps, 1.0), 1.0) if warm else 1.0
    return rise * (1 - step / steps)


def run_race(race: Race, task: Task, deadline: Deadline, out: Output) -> None:
    """Train from the beginning; only the steps are timed."""
    method, steps, kinds = race.method, race.steps, []
    model = task.model(seed=1).train()
    optimizer = optimizer_of(method, model, task, race.rate)
    bases = [group["lr"] for group in optimizer.param_groups]
    batches, seconds = Generator(device=DEVICE).manual_seed(1), 0.0
    ends = sorted({max(round(steps * (n + 1) / _POINTS), 1) for n in range(_POINTS)})
    _point(race, task, model, optimizer, 0, 0.0, [], out)
    for first, last in zip([0, *ends], ends, strict=False):
        if deadline.left(_PROFILE_SECONDS / 2) < 0:
            race.note = f"stopped after {first} steps: no time left"
            break
        losses, spans = [], Marks()
        wait()
        began = time.perf_counter()
        spans.mark()
        for step in range(first, last):
            for group, base in zip(optimizer.param_groups, bases, strict=True):
                group["lr"] = base * rate_at(step, steps, method != "EMSA")
            kinds.append(kind_of(optimizer))
            losses.append(passes(task, model, optimizer, task.draw(batches)))
            step_of(optimizer, losses[-1])
            spans.mark()
        wait()
        seconds += time.perf_counter() - began
        spans_ms = spans.milliseconds()
        out.rows(
            "steps.csv",
            [
                {
                    "part": "race",
                    "network": task.name,
                    "method": method,
                    "rate": race.rate or "",
                    "kind": kind,
                    "ms": f"{ms:.4f}",
                    "step_ms": "",
                    "host_ms": "",
                    "host_step_ms": "",
                }
                for kind, ms in zip(kinds[first:], spans_ms, strict=True)
            ],
        )
        _share(race, kinds[first:], spans_ms)
        _point(race, task, model, optimizer, last, seconds, losses, out)
        if not math.isfinite(race.points[-1][2]):
            race.note = "not finite"
            break


def _share(race: Race, kinds: list[str], spans: list[float]) -> None:
    """Add up the device's ms of steps by kind, and their numbers."""
    for kind, ms in zip(kinds, spans, strict=True):
        race.shares[kind] = race.shares.get(kind, 0.0) + ms
        race.shares[f"{kind} steps"] = race.shares.get(f"{kind} steps", 0.0) + 1


def _point(
    race: Race,
    task: Task,
    model: nn.Module,
    optimizer: Any,
    step: int,
    seconds: float,
    losses: list[Tensor],
    out: Output,
) -> None:
    """Evaluate, untimed."""
    found = task.evaluate(model, optimizer)
    batch_loss = torch.stack(losses).mean().item() if losses else math.nan
    race.points.append((step, seconds, found["held"], found["train"], found["accuracy"]))
    out.rows(
        "curves.csv",
        [
            {
                "network": race.network,
                "method": race.method,
                "rate": race.rate or "",
                "step": step,
                "seconds": f"{seconds:.4f}",
                "held": found["held"],
                "train": found["train"],
                "accuracy": found["accuracy"],
                "batches": batch_loss,
            }
        ],
    )


def entries(rates: int) -> list[tuple[str, float | None]]:
    """Methods and so many of their rates, what is most wanted first."""
    rivals = [(method, grid[n]) for n in range(rates) for method, grid in _RATES.items()]
    return [("EMSA", None), *rivals]


def races_of(
    task: Task, costs: dict[str, Cost], share: float, sizes: Sizes, deadline: Deadline, out: Output
) -> list[Race]:
    """All methods over equally many steps, so many that a share of the time left is used."""
    deadline.need(_RACE_SECONDS if sizes is not TINY else 0.0, _PROFILE_SECONDS)
    seconds = share * deadline.left(_PROFILE_SECONDS)
    runs = entries(1 if sizes is TINY else 3)
    known = {method: cost.steady() / 1e3 for method, cost in costs.items()}
    adam = known.get("AdamW", 0.05)
    each = sum(known.get(method, 1.5 * adam) for method, _ in runs)
    evaluation = len(runs) * (_POINTS + 1) * sizes.held * 1.3 * known.get("passes", adam)
    steps = min(max(int(0.92 * (seconds - evaluation) / each), 100), sizes.race)
    out.say(f"race on {task.name}: {steps} steps each, {seconds:.0f} s for all")
    races: list[Race] = []
    for _ in range(3):  # what is made once for all is not to be timed
        passes(task, task.model(), None, task.draw(Generator(device=DEVICE).manual_seed(2)))
    for method, rate in runs:
        with part(out, f"race of {method} {rate or ''} on {task.name}"):
            if sizes is not TINY:
                deadline.need(5.0, _PROFILE_SECONDS)
            race = Race(task.name, method, rate, steps)
            races.append(race)
            out.results["races"].append(vars(race))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run_race(race, task, deadline, out)
            out.say(
                f"  {race.name}: held {race.points[-1][2]:.4f}, train {race.points[-1][3]:.4f}, "
                f"{race.points[-1][1]:.1f} s {race.note}"
            )
    return races


def race_table(races: list[Race]) -> str:
    """Ends of all runs."""
    rows = []
    for race in (race for race in races if race.points):
        last, total = race.points[-1], sum(race.shares.get(kind, 0.0) for kind in _KINDS)
        extra = {kind: _extra(race, kind) / total if total else math.nan for kind in ("probe", "refresh")}
        rows.append(
            (
                race.network,
                race.name,
                last[0],
                number(last[1], 4),
                number(last[2], 4),
                number(last[3], 4),
                f"{last[4]:.2%}",
                f"{extra['refresh']:.1%}, {extra['probe']:.1%}" if race.method == "EMSA" else "",
                race.note,
            )
        )
    return table(
        "Races",
        (
            "network",
            "method",
            "steps",
            "seconds",
            "held-out loss",
            "train loss",
            "accuracy",
            "time of refreshes, probes beyond ordinary steps",
            "note",
        ),
        rows,
    )


def _extra(race: Race, kind: str) -> float:
    """ms that steps of a kind took beyond ordinary ones."""
    count = race.shares.get(f"{kind} steps", 0.0)
    ordinary = race.shares.get("ordinary", 0.0) / max(race.shares.get("ordinary steps", 0.0), 1)
    return race.shares.get(kind, 0.0) - count * ordinary


def crossing_table(races: list[Race]) -> str:
    """When EMSA reaches the end loss of a rival at its best rate, and the other way round."""
    rows = []
    for network in dict.fromkeys(race.network for race in races):
        own = next((race for race in races if race.network == network and race.method == "EMSA"), None)
        for method, column in ((method, column) for method in _RATES for column in (2, 3)):
            rivals = [race for race in races if race.network == network and race.method == method]
            best = min(rivals, key=lambda race: race.end(column), default=None)
            if own is None or best is None or not math.isfinite(best.end(column) + own.end(column)):
                continue
            edge = " (edge of its grid)" if best.rate in (min(_RATES[method]), max(_RATES[method])) else ""
            seconds, steps = (own.reaches(best.end(column), column, clock) for clock in (1, 0))
            back, back_steps = (best.reaches(own.end(column), column, clock) for clock in (1, 0))
            total, own_total = best.points[-1][1], own.points[-1][1]
            rows.append(
                (
                    network,
                    ("held-out", "train")[column - 2],
                    best.name + edge,
                    number(best.end(column), 4),
                    number(own.end(column), 4),
                    f"{number(seconds)} s, {number(steps)} steps",
                    number(seconds / total),
                    f"{number(back)} s, {number(back_steps)} steps",
                    number(back / own_total),
                )
            )
    header = (
        "network",
        "loss",
        "rival",
        "its end",
        "EMSA's end",
        "EMSA is at the rival's end after",
        "/ the rival's time",
        "the rival is at EMSA's end after",
        "/ EMSA's time",
    )
    return table("Time to the other's end loss", header, rows)


# Profile ---------------------------------------------------------------------------------------------------


def profile(task: Task, sizes: Sizes, deadline: Deadline, out: Output) -> None:
    """Tables of single steps: EMSA's ordinary and refresh, whole and the optimizer alone; AdamW's beside."""
    for method in ("EMSA", "AdamW"):
        model = task.model().train()
        optimizer = optimizer_of(method, model, task)
        batches = Generator(device=DEVICE).manual_seed(0)

        def iterate(
            model: nn.Module = model, optimizer: Any = optimizer, batches: Generator = batches
        ) -> None:
            step_of(optimizer, passes(task, model, optimizer, task.draw(batches)))

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(sizes.warm):
                iterate()
            _profiled("warm-up of the profiler", iterate, None)
            for kind in ("ordinary", "refresh") if method == "EMSA" else ("ordinary",):
                for whole in (False, True):
                    deadline.need(2.0)
                    _until(kind, optimizer, iterate)
                    if not whole:
                        passes(task, model, optimizer, task.draw(batches))
                    what = "iteration" if whole else "optimizer.step()"
                    _profiled(
                        f"{method} on {task.name}: {kind}, {what}", iterate if whole else optimizer.step, out
                    )


def _until(kind: str, optimizer: Any, iterate: Callable[[], None]) -> None:
    """Iterate until the next step is of a kind."""
    for _ in range(40):
        if kind_of(optimizer) == kind:
            return
        if kind == "refresh":
            force(optimizer)
        iterate()


def _profiled(title: str, call: Callable[[], Any], out: Output | None) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if on_gpu():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    wait()
    with torch.profiler.profile(activities=activities) as profiler:
        began = time.perf_counter()
        call()
        enqueued = time.perf_counter() - began
        wait()
        seconds = time.perf_counter() - began
    if out is None:
        return
    found = profiler.key_averages()
    runtime = {one.key: one.count for one in found if re.fullmatch(r"cu(da)?[A-Z]\w*", one.key)}
    head = f"\n\n# {title}\n\nhost {1e3 * enqueued:.2f} ms, device done after {1e3 * seconds:.2f} ms\n"
    out.text("profile.txt", head + f"calls of the runtime: {json.dumps(runtime)}\n")
    for keys in (("self_device_time_total", "self_cuda_time_total"), ("self_cpu_time_total",)):
        out.text("profile.txt", f"\n## by {keys[0]}\n\n" + _sorted(found, keys) + "\n")
    out.results.setdefault("profile", {})[title] = {
        "host_ms": 1e3 * enqueued,
        "ms": 1e3 * seconds,
        "runtime": runtime,
    }
    out.say(f"  {title}: host {1e3 * enqueued:.2f} ms, in all {1e3 * seconds:.2f} ms; {runtime}")


def _sorted(found: Any, keys: Sequence[str]) -> str:
    """The table by the first key that this torch knows."""
    for key in keys:
        try:
            return found.table(sort_by=key, row_limit=25, max_name_column_width=90)
        except (AttributeError, KeyError, TypeError, AssertionError):
            continue
    return found.table(row_limit=25)


# Main ------------------------------------------------------------------------------------------------------


def facts(sources: dict[str, str]) -> dict[str, Any]:
    """Of machine and versions."""
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(DEVICE),
        "data": sources,
        "Muon": "torch.optim" if hasattr(torch.optim, "Muon") else "pontryagin",
        "float32 products": torch.get_float32_matmul_precision(),
        "convolutions in TF32": torch.backends.cudnn.allow_tf32,
    }
    if on_gpu():
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "memory": torch.cuda.get_device_properties(0).total_memory / _GIB,
        }
    return found


def prepare(sizes: Sizes, wanted: Sequence[str], out: Output) -> list[Task]:
    """The tasks whose data are to be had, those that race first."""
    tasks: list[Task] = []
    sources: dict[str, str] = {}
    for name, make in (("text", text_tasks), ("images", image_tasks)):
        with part(out, f"data: {name}"):
            found, sources[name] = make(sizes)
            tasks += found
    out.results["facts"] = facts(sources)
    out.say(json.dumps(out.results["facts"]))
    return sorted([task for task in tasks if not wanted or task.name in wanted], key=lambda task: -task.share)


def run(sizes: Sizes, deadline: Deadline, parts: Sequence[str], wanted: Sequence[str], out: Output) -> None:
    """All parts."""
    tasks = prepare(sizes, wanted, out)
    costs: dict[str, dict[str, Cost]] = {}
    for task in tasks if "cost" in parts else ():
        costs[task.name] = costs_of(task, sizes, deadline, out)
        out.tables = [cost_table(costs), sync_table(out)]
        out.save()
    tables, races = out.tables, []
    racing = [task for task in tasks if task.share] if "race" in parts else []
    for n, task in enumerate(racing):
        with part(out, f"races on {task.name}"):
            share = task.share / sum(other.share for other in racing[n:])
            races += races_of(task, costs.get(task.name, {}), share, sizes, deadline, out)
            out.tables = [crossing_table(races), *tables, race_table(races)]
    for task in [task for task in tasks if task.name == "lm"] if "profile" in parts else ():
        with part(out, "profile"):
            deadline.need(10.0 if sizes is not TINY else 0.0)
            profile(task, sizes, deadline, out)


def main() -> int:
    """Run, and print the tables."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "runs/device"))
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="for everything, from the start of Python on"
    )
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on a CPU")
    parser.add_argument("--parts", default="cost,race,profile")
    parser.add_argument(
        "--networks", default="", help="some of: lm,resnet,vit,lm 32k tokens,resnet bf16 channels_last"
    )
    options = parser.parse_args()
    global DEVICE
    if options.rehearse or not torch.cuda.is_available():
        DEVICE = torch.device("cpu")
    if not options.rehearse and not on_gpu():
        print("there is no GPU: try --rehearse", flush=True)
        return 1
    torch.backends.cudnn.benchmark = True
    out = Output(options.out)
    wanted = [name for name in options.networks.split(",") if name]
    run(
        TINY if options.rehearse else Sizes(),
        Deadline(options.minutes),
        options.parts.split(","),
        wanted,
        out,
    )
    out.save()
    print("\n" + out.report(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
