"""Packed weights: exact, small, and refused when damaged."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from discrete_builders import batch, network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pontryagin.export import (
    PackedWeight,
    detected_sets,
    load_packed,
    packed_state,
    packed_weight,
    save_packed,
    size_report,
    whole_state,
    with_packed_weights,
)
from pontryagin.export.bits import bits_of, pack, unpack
from pontryagin.export.file import MAGIC
from pontryagin.problem import ProblemError
from pontryagin.problem.admissible import Binary, Codebook, DiscreteSet, Ternary
from pontryagin.problem.admissible.grid import Grid
from pontryagin.run.baselines import draw

SETS: list[DiscreteSet] = [Binary(), Ternary(), Binary(scale=0.3), Ternary(scale="row"), Codebook(3),
                           Codebook(8)]


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([Grid(2, 1), Grid(1, 1), Grid(1, 3), Grid(1, 7), Grid(1, 127)]), st.integers(0, 40),
       st.integers(0, 99))
def test_codes_come_back(grid: Grid, count: int, seed: int) -> None:
    codes = torch.tensor(grid.codes, dtype=torch.int8)[
        torch.randint(len(grid.codes), (count,), generator=torch.Generator().manual_seed(seed))]
    packed = pack(codes, grid)
    assert len(packed) == -(-count * bits_of(grid) // 8)
    assert torch.equal(unpack(packed, grid, count), codes)


def test_layout_of_bits() -> None:
    assert pack(torch.tensor([1, -1, -1, -1, 1, 1, -1, -1, 1], dtype=torch.int8),
                Grid(2, 1)).tolist() == [0b00110001, 1]
    assert pack(torch.tensor([-1, 0, 1, 1, 0], dtype=torch.int8), Grid(1, 1)).tolist() == [0b10100100, 1]


def test_wrong_bytes_are_refused() -> None:
    with pytest.raises(ProblemError, match="expected 2 bytes for 9 codes"):
        unpack(torch.zeros(1, dtype=torch.uint8), Grid(2, 1), 9)
    with pytest.raises(ProblemError, match="damaged"):
        unpack(torch.tensor([3], dtype=torch.uint8), Grid(1, 1), 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("admissible", SETS, ids=repr)
def test_weights_come_back_exactly(admissible: DiscreteSet, dtype: torch.dtype) -> None:
    weight = admissible.project(torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(dtype))
    packed = packed_weight(weight, admissible)
    assert torch.equal(packed.weight(), weight)
    assert packed.weight().dtype == dtype


@pytest.mark.parametrize("admissible", SETS, ids=repr)
def test_predictions_are_equal_after_a_file(admissible: DiscreteSet, tmp_path: Path) -> None:
    model = network(admissible)
    model(batch(0)[0])
    model.eval()
    names = [name for name, parameter in model.named_parameters() if parameter.ndim > 1]
    with torch.no_grad():
        expected = model(batch(1)[0])
    save_packed(tmp_path / "model.packed", packed_state(model.state_dict(), dict.fromkeys(names, admissible)))
    state = load_packed(tmp_path / "model.packed")
    assert [name for name, value in state.items() if isinstance(value, PackedWeight)] == names
    fresh = network(admissible, seed=5)
    fresh.load_state_dict(whole_state(state))
    packed = with_packed_weights(network(admissible, seed=6), state)
    with torch.no_grad():
        assert torch.equal(fresh.eval()(batch(1)[0]), expected)
        assert torch.equal(packed(batch(1)[0]), expected)
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]


def test_sizes() -> None:
    model = nn.Sequential(nn.Linear(64, 32, bias=False), nn.Linear(32, 10))
    model[0].weight.data = draw((32, 64), Binary())
    model[1].weight.data = Ternary(scale="row").project(model[1].weight.data)
    sets = detected_sets(model.state_dict())
    assert sets == {"0.weight": Binary(scale="row"), "1.weight": Ternary(scale="row")}
    report = size_report(packed_state(model.state_dict(), sets))
    assert [row.after for row in report.rows] == [64 * 32 // 8 + 4, 32 * 10 * 2 // 8 + 40, 40]
    assert report.before == 4 * (64 * 32 + 32 * 10 + 10)
    assert report.rows[0].nonzero == 1
    assert f"{report.after:,}" in str(report)


def test_only_what_becomes_smaller_is_detected() -> None:
    counts = torch.zeros(2, 2, dtype=torch.long)
    assert detected_sets({"column": torch.randn(6, 1), "real": torch.randn(6, 8), "counts": counts}) == {}


def test_module_at_two_places_and_module_alone() -> None:
    layer = nn.Linear(8, 8, bias=False)
    layer.weight.data = draw((8, 8), Ternary())
    for model in (nn.Sequential(layer, nn.Tanh(), layer), layer):
        expected = model(torch.ones(2, 8))
        model = copy.deepcopy(model)
        packed = with_packed_weights(model,
                                     packed_state(model.state_dict(), detected_sets(model.state_dict())))
        assert torch.equal(packed(torch.ones(2, 8)), expected)


def test_wrong_requests_are_refused() -> None:
    model = nn.Linear(4, 4)
    with pytest.raises(ProblemError, match=r"weight: a matrix .* lies outside"):
        packed_state(model.state_dict(), {"weight": Ternary()})
    with pytest.raises(ProblemError, match="no tensor is named 'wieght'"):
        packed_state(model.state_dict(), {"wieght": Ternary()})
    with pytest.raises(ProblemError, match="another model"):
        with_packed_weights(nn.Linear(4, 4, bias=False), dict(model.state_dict()))
    with pytest.raises(ProblemError, match="expected shape"):
        with_packed_weights(nn.Linear(4, 5), dict(nn.Linear(5, 5).state_dict()))


def written(tmp_path: Path) -> Path:
    path = tmp_path / "a.packed"
    save_packed(path, packed_state({"w": draw((3, 5), Ternary()), "b": torch.ones(3)}, {"w": Ternary()}))
    return path


@pytest.mark.parametrize("change", [lambda c: b"", lambda c: c[:20], lambda c: c[:-1], lambda c: c + b"\0",
                                    lambda c: c[:-1] + bytes([c[-1] ^ 1]), lambda c: b"X" + c[1:]])
def test_damaged_files_are_refused(change: Any, tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ProblemError, match=r"checksum|not a file of packed weights"):
        load_packed(path)


@pytest.mark.parametrize("change", [
    {"shape": [3, 6]}, {"shape": [-3, 5]}, {"shape": [3, "5"]}, {"dtype": "int8"}, {"dtype": "object"},
    {"limit": 0}, {"scales": 2}, {"name": 3}, {"name": "b"}, {"step": 7}, {"shape": [1 << 40, 1 << 40]},
    {"limit": "1"},
])
def test_forged_headers_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    """With a checksum that matches."""
    path = written(tmp_path)
    content = path.read_bytes()
    length = int.from_bytes(content[40:48], "little")
    header = json.loads(content[48:48 + length])
    header["tensors"][0] |= change
    changed = json.dumps(header).encode()
    body = len(changed).to_bytes(8, "little") + changed + content[48 + length:]
    path.write_bytes(MAGIC + hashlib.sha256(body).digest() + body)
    with pytest.raises(ProblemError):
        load_packed(path)
