"""The step of every layer type is the dense argmax of its augmented Hamiltonian.

Oracle: z is a linear function of the parameters, z = J theta, with J the jacobian of the module's own output
by automatic differentiation. Moments are means over the rows of a stage (samples times positions), while G
and g are sums over them with the loss's own mean. So the objective is <G, dW> + <g, db> - 1/2 mean over rows
|change of z|^2, the mean over samples and positions with the channels summed, and its argmax (J^T J / rows)^+
(G, g).

A transposed convolution is a stage before overlapping outputs are added: its oracle is a convolution of each
input position alone, where nothing overlaps, summed over positions; its bias is a stage of its own. With
exponent 1 and damping 0.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

import builders
from pontryagin.affine import argmax
from pontryagin.affine.metric import Diagonal, FactoredMoment, factorize
from pontryagin.trajectory.capture import capture

assert_close = partial(builders.assert_close, least=1e-5)
DOUBLE = {"dtype": torch.float64}

Case = tuple[Callable[[], nn.Module], tuple[int, ...], int]
"""A module, the shape of its inputs, and outputs of one position (over which squares are summed)."""

CASES: dict[str, Case] = {
    "linear": (lambda: nn.Linear(3, 4), (9, 3), 4),
    "linear without bias": (lambda: nn.Linear(3, 4, bias=False), (9, 3), 4),
    "linear, rank-deficient": (lambda: nn.Linear(5, 2), (3, 5), 2),
    "linear on sequences": (lambda: nn.Linear(3, 2), (4, 5, 3), 2),
    "linear on grids": (lambda: nn.Linear(2, 2), (3, 2, 3, 2), 2),
    "linear on one vector": (lambda: nn.Linear(3, 2), (3,), 2),
    "conv1d, stride": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1), (4, 2, 7), 3),
    "conv1d, same": (lambda: nn.Conv1d(2, 2, 4, padding="same"), (4, 2, 6), 2),
    "conv1d, circular": (lambda: nn.Conv1d(2, 2, 3, padding=2, padding_mode="circular"), (4, 2, 6), 2),
    "conv1d, unbatched": (lambda: nn.Conv1d(2, 3, 2), (2, 9), 3),
    "conv2d": (lambda: nn.Conv2d(2, 3, (2, 3), stride=(1, 2), padding=(0, 1)), (3, 2, 5, 6), 3),
    "conv2d without bias": (lambda: nn.Conv2d(2, 2, 2, bias=False), (3, 2, 3, 4), 2),
    "conv2d, dilation": (lambda: nn.Conv2d(1, 2, 2, dilation=(2, 3), padding=1), (3, 1, 5, 6), 2),
    "conv2d, groups": (lambda: nn.Conv2d(4, 6, 2, groups=2), (5, 4, 3, 4), 6),
    "conv2d, depthwise": (lambda: nn.Conv2d(3, 3, 2, groups=3), (4, 3, 3, 3), 3),
    "conv2d, same": (lambda: nn.Conv2d(1, 2, (2, 3), padding="same", dilation=(1, 2)), (3, 1, 4, 5), 2),
    "conv2d, valid": (lambda: nn.Conv2d(1, 2, 2, padding="valid"), (3, 1, 4, 5), 2),
    "conv2d, circular": (lambda: nn.Conv2d(1, 2, 3, padding=(1, 2), padding_mode="circular"), (3, 1, 4, 5),
                         2),
    "conv2d, reflect": (lambda: nn.Conv2d(1, 2, 3, padding=(1, 2), padding_mode="reflect"), (3, 1, 4, 5), 2),
    "conv2d, replicate": (lambda: nn.Conv2d(1, 2, 3, padding="same", padding_mode="replicate"), (3, 1, 4, 5),
                          2),
    "conv3d": (lambda: nn.Conv3d(2, 2, (1, 2, 2), stride=(1, 1, 2), padding=(0, 1, 0)), (3, 2, 2, 3, 4), 2),
    "conv3d, dilation, groups": (lambda: nn.Conv3d(2, 2, 2, dilation=(1, 2, 1), groups=2), (9, 2, 3, 3, 2),
                                 2),
    "batch norm": (lambda: nn.BatchNorm1d(3), (7, 3), 3),
    "batch norm on images": (lambda: nn.BatchNorm2d(3), (3, 3, 2, 4), 3),
    "batch norm, eval": (lambda: moved(nn.BatchNorm1d(3)).eval(), (7, 3), 3),
    "batch norm without statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False).eval(),
                                      (3, 3, 2, 2), 3),
    "layer norm": (lambda: nn.LayerNorm(3), (4, 5, 3), 3),
    "layer norm on grids": (lambda: nn.LayerNorm((2, 3)), (6, 2, 3), 6),
    "layer norm without bias": (lambda: nn.LayerNorm(3, bias=False), (6, 3), 3),
    "group norm": (lambda: nn.GroupNorm(2, 4), (3, 4, 5), 4),
    "group norm on images": (lambda: nn.GroupNorm(1, 3), (3, 3, 2, 2), 3),
    "rms norm": (lambda: nn.RMSNorm(3), (4, 5, 3), 3),
}


def moved(norm: nn.BatchNorm1d) -> nn.BatchNorm1d:
    """A batch norm that has seen data."""
    norm(2 * torch.randn(20, 3) + 1)
    return norm


def steps(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The change of each parameter, from the stages' moments and the parameters' gradients of a random linear
    loss."""
    stages, _ = capture(module, None)
    output = module(x)
    (output * torch.randn_like(output)).sum().backward()
    found = {}
    for stage in stages:
        one, taken = stage.map, stage.moments.take()
        assert taken is not None
        has_bias = stage.bias is not None
        if not has_bias:
            taken.add_outer(taken.mean, 1.0)
        mean = taken.mean
        metric: FactoredMoment = Diagonal(taken.product) if one.one_hot else factorize(taken.product)
        weight = one.matrix(stage.weight)
        bias = -stage.bias.grad.reshape(weight.shape[:2]) if has_bias else None
        change, bias_change, _ = argmax(-one.matrix(stage.weight.grad), bias, mean, metric, 0.0, 1.0)
        found[one.weight] = one.shaped(change)
        if bias_change is not None:
            found[one.bias] = bias_change.reshape(stage.bias.shape)
    return found


def dense_argmax(outputs: Callable[[dict[str, Tensor]], Tensor], parameters: dict[str, nn.Parameter],
                 rows: int) -> dict[str, Tensor]:
    """(J^T J / rows)^+ (G, g)."""
    values = {name: parameter.detach() for name, parameter in parameters.items()}
    jacobians = jacrev(outputs)(values)
    size = outputs(values).numel()
    jacobian = torch.cat([jacobians[name].reshape(size, -1) for name in values], 1)
    gradient = -torch.cat([parameter.grad.flatten() for parameter in parameters.values()])
    solution = torch.linalg.pinv(jacobian.mT @ jacobian / rows, hermitian=True, rtol=1e-12) @ gradient
    parts = solution.split([value.numel() for value in values.values()])
    return {name: part.reshape(value.shape)
            for (name, value), part in zip(values.items(), parts, strict=True)}


def randomized(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module.double()


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", CASES)
def test_argmax(name: str) -> None:
    make, shape, channels = CASES[name]
    module = randomized(make())
    x = torch.randn(*shape, **DOUBLE) * 1.5 + 0.7
    found = steps(module, x)
    frozen = {key: value.clone() for key, value in module.named_buffers()}

    def outputs(values: dict[str, Tensor]) -> Tensor:
        return functional_call(module, (values, {key: value.clone() for key, value in frozen.items()}), (x,))

    parameters = dict(module.named_parameters())
    size = outputs({key: value.detach() for key, value in parameters.items()}).numel()
    expected = dense_argmax(outputs, parameters, size // channels)
    assert found.keys() == expected.keys()
    # several splits between weight and bias give the same z
    if name in ("linear, rank-deficient", "linear on one vector"):
        assert_close(x @ found["weight"].mT + found["bias"], x @ expected["weight"].mT + expected["bias"])
        return
    for key in expected:
        assert_close(found[key], expected[key])


@pytest.mark.parametrize("padding", [None, 2])
def test_argmax_of_embeddings(padding: int | None) -> None:
    """Rows of tokens that do not occur, and the padding row, stay. J for the padding row is 0, as its
    gradient."""
    module = nn.Embedding(6, 3, padding_idx=padding).double()
    tokens = torch.tensor([[0, 1, 2, 2], [3, 3, 1, 0], [2, 3, 3, 3]])
    found = steps(module, tokens)
    weight = dict(module.named_parameters())

    def outputs(values: dict[str, Tensor]) -> Tensor:
        kept = torch.ones(6, 1, **DOUBLE)
        if padding is not None:
            kept[padding] = 0
        return torch.nn.functional.embedding(tokens, values["weight"] * kept)

    assert_close(found["weight"], dense_argmax(outputs, weight, 12)["weight"])
    assert not found["weight"][[4, 5]].any()
    if padding is not None:
        assert not found["weight"][padding].any()


TRANSPOSED: dict[str, Case] = {
    "1d": (lambda: nn.ConvTranspose1d(2, 3, 3), (5, 2, 4), 0),
    "1d, stride, padding": (lambda: nn.ConvTranspose1d(2, 2, 3, stride=2, padding=1), (5, 2, 4), 0),
    "1d, output padding beyond the stride": (lambda: nn.ConvTranspose1d(2, 2, 3, stride=1, dilation=3,
                                                                        output_padding=2),
                                             (5, 2, 4), 0),
    "1d, unbatched": (lambda: nn.ConvTranspose1d(2, 3, 2), (2, 9), 0),
    "2d, output padding": (lambda: nn.ConvTranspose2d(2, 2, 2, stride=2, output_padding=1), (4, 2, 2, 3), 0),
    "2d, groups": (lambda: nn.ConvTranspose2d(4, 6, 2, stride=(1, 2), groups=2), (6, 4, 2, 3), 0),
    "2d without bias": (lambda: nn.ConvTranspose2d(2, 1, (2, 3), dilation=2, bias=False), (6, 2, 2, 2), 0),
    "3d": (lambda: nn.ConvTranspose3d(2, 1, (1, 2, 2), stride=2), (4, 2, 2, 1, 2), 0),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_argmax_of_transposed_convolutions(name: str) -> None:
    make, shape, _ = TRANSPOSED[name]
    module = randomized(make())
    x = torch.randn(*shape, **DOUBLE) + 0.5
    found = steps(module, x)
    dims = len(module.kernel_size)
    batched = x if x.ndim == dims + 2 else x.unsqueeze(0)
    single = batched.flatten(2).mT.reshape(-1, batched.shape[1], *[1] * dims)  # (position, input, 1, ...)
    apply = {1: torch.nn.functional.conv_transpose1d, 2: torch.nn.functional.conv_transpose2d,
             3: torch.nn.functional.conv_transpose3d}[dims]

    def outputs(values: dict[str, Tensor]) -> Tensor:
        return apply(single, values["weight"], stride=module.stride, groups=module.groups,
                     dilation=module.dilation)

    expected = dense_argmax(outputs, {"weight": module.weight}, single.shape[0])
    assert_close(found["weight"], expected["weight"])
    if module.bias is not None:  # z = b alone: mean |change of z|^2 is |db|^2
        assert_close(found["bias"], -module.bias.grad)


def test_argmax_in_a_damped_metric() -> None:
    """With exponent 1 and damping the objective has 1/2 delta |dW|^2 too, delta = damping mean(diag A_c)."""
    module = randomized(nn.Linear(3, 2))
    x = torch.randn(8, 3, **DOUBLE) + 1
    module(x).square().sum().backward()
    centred = x - x.mean(0)
    moment = centred.mT @ centred / 8
    shift = 0.3 * moment.diagonal().mean()
    G, g, s = -module.weight.grad, -module.bias.grad, x.mean(0)
    change = torch.zeros(2, 4, requires_grad=True, **DOUBLE)

    def value(theta: Tensor) -> Tensor:
        dW, db = theta[:, :3], theta[:, 3]
        return (G * dW).sum() + g @ db - (x @ dW.mT + db).square().sum() / 16 - shift / 2 * dW.square().sum()

    hessian = torch.autograd.functional.hessian(value, change).reshape(8, 8)
    best = -torch.linalg.solve(hessian, torch.autograd.grad(value(change), change)[0].flatten()).reshape(2, 4)
    found, bias, _ = argmax(G[None].clone(), g[None], s[None], factorize(moment[None]), 0.3, 1.0)
    assert_close(found[0], best[:, :3])
    assert bias is not None
    assert_close(bias[0], best[:, 3])
