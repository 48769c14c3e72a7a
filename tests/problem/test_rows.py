"""What a row of a weight is, of every kind of layer: against loops over outputs; 2:4 along the input channels
of a tap."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pontryagin.audit import audit
from pontryagin.export import load_packed, packed_state, save_packed, whole_state, with_packed_weights
from pontryagin.optim import EMSA
from pontryagin.problem import Binary, Codebook, KSparse, ProblemError, Ternary, TwoFourSparse, stage
from pontryagin.problem.admissible import DiscreteSet, rows_of

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(8, 6), "conv1d": lambda: nn.Conv1d(8, 4, 3),
    "conv2d": lambda: nn.Conv2d(8, 6, (3, 2)),
    "conv3d": lambda: nn.Conv3d(4, 2, 2), "grouped": lambda: nn.Conv2d(16, 6, 3, groups=2),
    "embedding": lambda: nn.Embedding(6, 8), "bag": lambda: nn.EmbeddingBag(6, 8),
    "transposed 1d": lambda: nn.ConvTranspose1d(8, 3, 3),
    "transposed 2d": lambda: nn.ConvTranspose2d(4, 4, (3, 2)),
    "transposed 3d": lambda: nn.ConvTranspose3d(4, 3, 2),
    "transposed, grouped": lambda: nn.ConvTranspose2d(8, 6, 3, groups=2),
    "transposed, as many groups": lambda: nn.ConvTranspose1d(4, 8, 3, groups=4, bias=False),
}
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def made(kind: str) -> nn.Module:
    torch.manual_seed(1)
    return LAYERS[kind]().double()


def outputs_of(module: nn.Module, weight: Tensor) -> list[Tensor]:
    """Views of the entries (channel, tap) that make an output channel, or of a token, one by one."""
    if not isinstance(module, TRANSPOSED):
        return [row.reshape(row.shape[0], -1) for row in weight]
    per_group, channels = module.out_channels // module.groups, module.in_channels // module.groups
    return [weight[group * channels:(group + 1) * channels, output].flatten(1)
            for group in range(module.groups) for output in range(per_group)]


@pytest.mark.parametrize("kind", LAYERS)
def test_rows_are_outputs(kind: str) -> None:
    module = made(kind)
    weight, rows = module.weight.detach(), rows_of(module, "weight")
    matrix = rows.matrix(weight)
    assert matrix.shape == rows.size
    for row, output in zip(matrix, outputs_of(module, weight), strict=True):
        assert torch.equal(row, output.flatten())
    assert torch.equal(rows.shaped(matrix), weight)
    stacked = torch.stack([weight, 2 * weight])
    assert torch.equal(rows.matrix(stacked), torch.stack([matrix, 2 * matrix]))
    assert torch.equal(rows.shaped(rows.matrix(stacked)), stacked)


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if "transposed" in kind])
def test_an_output_of_a_transposed_convolution_hears_its_own_row_alone(kind: str) -> None:
    """By the module itself: a change of row i moves output channel i, and no other."""
    module = made(kind)
    rows, weight = rows_of(module, "weight"), module.weight.detach()
    x = torch.randn(2, module.in_channels, *[4] * (weight.ndim - 2), dtype=torch.float64)
    for number in range(rows.size[0]):
        change = torch.zeros(rows.size, dtype=torch.float64)
        change[number] = 1.0
        moved = torch.func.functional_call(module, {"weight": weight + rows.shaped(change)}, (x,)) - module(x)
        heard = moved.abs().amax(tuple(n for n in range(moved.ndim) if n != 1)) > 1e-9
        assert heard.nonzero().flatten().tolist() == [number]


def scales_found(module: nn.Module, weight: Tensor) -> bool:
    """Whether every output has entries of one size, and two outputs have different ones."""
    sizes = [output.abs().unique() for output in outputs_of(module, weight)]
    return all(len(size) == 1 for size in sizes) and len(torch.cat(sizes).unique()) > 1


def batches_for(kind: str, module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    if kind == "embedding":
        return [(torch.randint(6, (4, 3)), torch.zeros(4)) for _ in range(3)]
    shape = (8,) if kind == "linear" else (module.in_channels, *[4] * (module.weight.ndim - 2))
    return [(torch.randn(4, *shape, dtype=torch.float64), torch.zeros(4)) for _ in range(3)]


def size_of_outputs(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.square().sum() / len(targets)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.filterwarnings("ignore:EMSA trains")
def test_optimizer_control_problem_and_audit_agree(kind: str) -> None:
    """EMSA, stage(...) and the audit move a weight to the same point: here the three largest entries of every
    output."""
    module = made(kind)
    weight = module.weight.detach().clone()
    expected = torch.zeros_like(weight)
    for places in outputs_of(module, torch.arange(weight.numel()).view(weight.shape)):
        kept = places.flatten()[weight.flatten()[places.flatten()].abs().topk(3).indices]
        expected.view(-1)[kept] = weight.flatten()[kept]
    found = stage(module, admissible={"weight": KSparse(3)})
    assert torch.equal(found.parameters(found.start)["weight"], expected)
    assert bool(found.admissible.contains(found.start))
    model = nn.Sequential(module)
    if kind != "bag":  # no affine stage
        batches = batches_for(kind, module)
        audited = audit(model, size_of_outputs, batches, sets={"k": KSparse(3)})
        cost = next(one for one in audited.stages if one.name == "0.weight").restrictions[0].true
        after = sum(size_of_outputs(torch.func.functional_call(module, {"weight": expected}, (x,)), y).item()
                    for x, y in batches)
        assert cost == pytest.approx((after - sum(size_of_outputs(model(x), y).item() for x, y in batches))
                                     / 3, rel=1e-9)
    EMSA(model, constraint={"0.weight": KSparse(3)})
    assert torch.equal(module.weight.detach(), expected)


@pytest.mark.parametrize("theta", [Binary("row"), Ternary("row"), Codebook(4)], ids=repr)
@pytest.mark.parametrize("kind", LAYERS)
def test_packed_weights_have_a_scale_for_each_output(kind: str, theta: DiscreteSet, tmp_path: Path) -> None:
    module = made(kind)
    rows = rows_of(module, "weight")
    with torch.no_grad():
        module.weight.copy_(rows.shaped(theta.project(rows.matrix(module.weight.detach()))))
    if isinstance(theta, Binary):
        assert scales_found(module, module.weight.detach())
    state = packed_state(module.state_dict(), {"weight": theta})
    assert state["weight"].scales.shape == (rows.size[0],)
    save_packed(tmp_path / "model.packed", state)
    assert (b"groups" in (tmp_path / "model.packed").read_bytes()) == ("transposed" in kind)
    loaded = load_packed(tmp_path / "model.packed")
    assert torch.equal(whole_state(loaded)["weight"], module.weight.detach())
    assert torch.equal(with_packed_weights(made(kind), loaded).packed("weight").weight(),
                       module.weight.detach())


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if "groups" not in kind and kind != "bag"])
def test_two_of_four_input_channels_at_every_tap(kind: str) -> None:
    module = made(kind)
    channels_of = outputs_of(module, module.weight.detach().clone())
    theta = TwoFourSparse().within(rows_of(module, "weight"))
    rows = rows_of(module, "weight")
    theta.check(*rows.size)
    weight = rows.shaped(theta.project(rows.matrix(module.weight.detach())))
    for output, before in zip(outputs_of(module, weight), channels_of, strict=True):
        for tap in range(output.shape[1]):
            for first in range(0, output.shape[0], 4):
                four, old = output[first:first + 4, tap], before[first:first + 4, tap]
                kept = old.abs().topk(2).indices.sort().values
                assert four.nonzero().flatten().tolist() == kept.tolist()
                assert torch.equal(four[kept], old[kept])
    assert bool(theta.contains(rows.matrix(weight)))
    assert not bool(theta.contains(rows.matrix(module.weight.detach())))
    found = stage(module, admissible={"weight": TwoFourSparse()})
    assert torch.equal(found.parameters(found.start)["weight"], weight)
    EMSA(nn.Sequential(module), constraint={"0.weight": TwoFourSparse()})
    assert torch.equal(module.weight.detach(), weight)


@pytest.mark.parametrize(("module", "found"), [
    (nn.Conv2d(2, 8, 2), "multiple of 4, found 2 at each of 4 taps"),
    (nn.Conv2d(8, 8, 4, groups=8), "multiple of 4, found 1 at each of 16 taps"),
    (nn.Linear(6, 2), "multiple of 4, found 6"), (nn.ConvTranspose1d(4, 8, 4, groups=2), "multiple of 4, "
                                                                                         "found 2 at each of "
                                                                                         "4 taps"),
    (nn.Conv1d(6, 2, 2), "found 6 at each")])
def test_fewer_channels_are_refused_in_one_line(module: nn.Module, found: str) -> None:
    """Also where the whole row is a multiple of four."""
    for make in (lambda: stage(module, admissible={"weight": TwoFourSparse()}),
                 lambda: EMSA(module, constraint={"weight": TwoFourSparse()})):
        with pytest.raises(ProblemError, match=found) as refused:
            make()
        assert "\n" not in str(refused.value)


def test_a_bare_matrix_is_told_its_taps() -> None:
    torch.manual_seed(0)
    weight = torch.randn(8, 8, 3, 3)
    sparse = TwoFourSparse(taps=9).project(weight.flatten(1)).view_as(weight)
    assert ((sparse != 0).permute(0, 2, 3, 1).reshape(-1, 4).sum(1) == 2).all()
    with pytest.raises(ProblemError, match="taps >= 1"):
        TwoFourSparse(taps=0)
