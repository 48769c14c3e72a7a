"""EMSA as it comes on families of models that are in use: nothing raises, all stays finite, nothing stands
still."""

import math
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pontryagin.optim import EMSA

pytestmark = [pytest.mark.slow, pytest.mark.extra, pytest.mark.filterwarnings("ignore")]
NAMES = [
    "gpt2", "opt", "llama", "mixtral", "mamba", "bert", "albert", "deberta-v2", "t5", "bart", "whisper",
    "wav2vec2", "vit",
    "swin", "convnext", "mobilenet-v2", "mobilevit", "clip", "patchtst", "nn.Transformer", "lstm", "low-rank",
    "u-net",
    "spectral-norm", "equalized", "tied-autoencoder", "dcgan", "physics-informed", "recommender",
]


@pytest.fixture
def benchmark_of_families(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    pytest.importorskip("transformers").logging.set_verbosity_error()
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    return import_module("benchmarks.families")


def run(families: ModuleType, name: str, steps: int = 8) -> tuple[torch.nn.Module, dict[str, torch.Tensor],
                                                                  list[float]]:
    """The trained model, its parameters before, and the losses."""
    family = families.FAMILIES[name]
    torch.manual_seed(0)
    model = family.build().train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    batches = torch.Generator().manual_seed(0)
    optimizers = [EMSA(part) for part in family.parts(model)]
    losses = [family.iterate(family, model, family.draw(batches), optimizers) for _ in range(steps)]
    return model, before, losses


@pytest.mark.parametrize("name", NAMES)
def test_emsa_trains_the_whole_model(benchmark_of_families: ModuleType, name: str) -> None:
    """Also what its stages do not hold, which AdamW trains, moves."""
    model, before, losses = run(benchmark_of_families, name)
    assert all(map(math.isfinite, losses))
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not import_module("benchmarks.measure").unmoved(model, before)


def test_recomputed_layers_are_maximized_as_others_are(benchmark_of_families: ModuleType) -> None:
    plain, _, losses = run(benchmark_of_families, "decoder")
    recomputed, _, same = run(benchmark_of_families, "checkpointed")
    assert losses == pytest.approx(same, rel=1e-5)
    for one, other in zip(plain.parameters(), recomputed.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
