"""Packed weights: exact, small, and refused when damaged."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
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
from pontryagin.export.file import FORMAT, checksum
from pontryagin.problem import ProblemError
from pontryagin.problem.admissible import Binary, Codebook, DiscreteSet, Rows, Ternary
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
    assert report.rows[0].density == 1
    assert f"{report.after:,}" in str(report)


def test_only_what_becomes_smaller_is_detected() -> None:
    counts = torch.zeros(2, 2, dtype=torch.long)
    assert detected_sets({"column": torch.randn(6, 1), "real": torch.randn(6, 8), "counts": counts}) == {}


def test_codebooks_are_detected_by_their_bits() -> None:
    real = torch.randn(6, 40)
    for bits, found in ((3, 4), (4, 4), (8, 8)):
        codes = Codebook(bits).project(real)
        assert detected_sets({"w": codes}) == {"w": Codebook(found)}
        assert detected_sets({"w": torch.cat([codes, real])}) == {}, "all rows"
        state = packed_state({"w": codes}, {"w": Codebook(found)})
        assert torch.equal(whole_state(state)["w"], codes)


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


def header_of(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return json.loads(content[8:8 + int.from_bytes(content[:8], "little")])


def test_a_file_is_a_safetensors_file(tmp_path: Path) -> None:
    """Any reader of such files finds codes, scales and the other tensors."""
    found = safetensors.torch.load_file(written(tmp_path))
    assert {name: (value.dtype, tuple(value.shape)) for name, value in found.items()} == {
        "w.codes": (torch.uint8, (4,)), "w.scales": (torch.float32, (1,)), "b": (torch.float32, (3,))}
    described = json.loads(header_of(tmp_path / "a.packed")["__metadata__"]["tensors"])
    assert described == [{"name": "w", "shape": [3, 5], "step": 1, "limit": 1}, {"name": "b"}]


def test_what_a_state_dict_may_hold_comes_back(tmp_path: Path) -> None:
    """In its order: views, tied tensors, none and one entry, integers, bools."""
    shared = torch.randn(4, 3)
    state = {"z": shared.T, "tied": shared, "a": torch.zeros(0, 2), "count": torch.tensor(3),
             "mask": torch.tensor([True, False]), "half": torch.randn(2, dtype=torch.bfloat16)}
    save_packed(tmp_path / "a.packed", packed_state(state, {}))
    found = whole_state(load_packed(tmp_path / "a.packed"))
    assert list(found) == list(state)
    for name, value in state.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


def test_names_that_are_taken_are_refused(tmp_path: Path) -> None:
    state = packed_state({"w": draw((3, 5), Ternary()), "w.codes": torch.ones(3)}, {"w": Ternary()})
    with pytest.raises(ProblemError, match=r"two tensors w\.codes"):
        save_packed(tmp_path / "a.packed", state)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("change", [lambda c: b"", lambda c: c[:20], lambda c: c[:-1], lambda c: c + b"\0",
                                    lambda c: c[:-1] + bytes([c[-1] ^ 1]), lambda c: b"X" + c[1:],
                                    lambda c: c.replace(b"limit", b"limiT"),
                                    lambda c: c.replace(b'\\"limit\\": 1', b'\\"limit\\": 3'),
                                    lambda c: c.replace(b"F32", b"I32"), lambda c: c.replace(b'"b"', b'"c"'),
                                    lambda c: safetensors.torch.save({"b": torch.ones(3)})])
def test_damaged_files_are_refused(change: Any, tmp_path: Path) -> None:
    path = written(tmp_path)
    content = path.read_bytes()
    path.write_bytes(change(content))
    assert path.read_bytes() != content
    with pytest.raises(ProblemError, match=r"checksum|not a file of packed weights") as refused:
        load_packed(path)
    assert "\n" not in str(refused.value)


def test_any_changed_byte_of_codes_and_scales_is_seen(tmp_path: Path) -> None:
    path = written(tmp_path)
    content = path.read_bytes()
    for place in range(8 + int.from_bytes(content[:8], "little"), len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1:])
        with pytest.raises(ProblemError, match="checksum"):
            load_packed(path)


@pytest.mark.parametrize("change", [
    {"shape": [3, 6]}, {"shape": [-3, 5]}, {"shape": [3, "5"]}, {"shape": 15}, {"limit": 0}, {"limit": 3},
    {"limit": "1"}, {"limit": 1.0}, {"name": 3}, {"name": "b"}, {"name": ["w"]}, {"step": 7},
    {"shape": [1 << 40, 1 << 40]}, {"shape": [1 << 70]}, {"groups": 2}, {"groups": "1"}, {"limit": None},
    {"tensor": {"w.scales": torch.ones(2)}}, {"tensor": {"w.scales": torch.tensor([float("nan")])}},
    {"tensor": {"w.scales": torch.zeros(1)}}, {"tensor": {"w.scales": torch.ones(1, dtype=torch.int8)}},
    {"tensor": {"w.codes": torch.full((4,), 255, dtype=torch.uint8)}},
    {"tensor": {"w.codes": torch.zeros(4, dtype=torch.int8)}}, {"tensor": {"more": torch.ones(1)}},
])
def test_forged_files_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    """With a checksum that matches."""
    path = written(tmp_path)
    described = json.loads(header_of(path)["__metadata__"]["tensors"])
    tensors = safetensors.torch.load(path.read_bytes()) | change.pop("tensor", {})
    described[0] |= change
    text = json.dumps(described)
    path.write_bytes(safetensors.torch.save(
        tensors, {"format": FORMAT, "tensors": text, "checksum": checksum(text, tensors)}))
    with pytest.raises(ProblemError, match=r"does not fit tensor|a description of every tensor"):
        load_packed(path)


@pytest.mark.parametrize("text", ["", "{", "3", "[3]", "[[]]", '{"name": "w"}', "[" * 100_000])
def test_descriptions_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    path, tensors = tmp_path / "a.packed", {"w": torch.ones(3)}
    path.write_bytes(safetensors.torch.save(
        tensors, {"format": FORMAT, "tensors": text, "checksum": checksum(text, tensors)}))
    with pytest.raises(ProblemError, match="does not fit"):
        load_packed(path)


def test_weights_of_a_transposed_convolution_come_back_with_their_groups(tmp_path: Path) -> None:
    weight = nn.ConvTranspose2d(4, 6, 3, groups=2).weight.detach()
    rows = Rows(weight.shape, 2)
    inside = rows.shaped(Ternary(scale="row").project(rows.matrix(weight)))
    save_packed(tmp_path / "a.packed", packed_state({"w": inside}, {"w": Ternary(scale="row")}))
    found = load_packed(tmp_path / "a.packed")["w"]
    assert isinstance(found, PackedWeight)
    assert found.rows == rows
    assert torch.equal(found.weight(), inside)
