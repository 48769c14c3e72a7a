import pytest
import torch
from torch import nn
from torch.nn import functional

from pontryagin.run.errors import ExperimentError
from pontryagin.run.models import CharacterModel, autoencoder, mlp, residual_cnn


def test_the_residual_network_is_the_papers():
    """Against the formula, with tanh before pooling as the paper writes it."""
    torch.manual_seed(3)
    model = residual_cnn((1, 28, 28), 10, layers=3, channels=4, step_size=0.25).double()
    x = torch.randn(5, 1, 28, 28, dtype=torch.float64)
    *convolutions, head = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    state = x
    for conv in convolutions[:2]:
        state = functional.max_pool2d(torch.tanh(functional.conv2d(state, conv.weight, conv.bias, padding=1)),
                                      2)
    for conv in convolutions[2:]:
        state = state + 0.25 * torch.tanh(functional.conv2d(state, conv.weight, conv.bias, padding=1))
    expected = state.flatten(1) @ head.weight.mT + head.bias
    assert len(convolutions) == 5
    torch.testing.assert_close(model(x), expected)


def test_the_default_is_the_papers_size():
    model = residual_cnn()
    assert len(model) == 2 + 7 + 1
    assert sum(parameter.numel() for parameter in model.parameters()) == (
        (9 + 1) * 32 + 8 * (9 * 32 + 1) * 32 + (7 * 7 * 32 + 1) * 10)


@pytest.mark.parametrize(("build", "outputs", "gain"), [
    (lambda shape: residual_cnn(shape, 7, layers=2, channels=8), 7, 1.0),
    (lambda shape: mlp(shape, 7, depth=2), 7, 2.0),
    (lambda shape: autoencoder(shape, widths=(20, 5)), 3 * 9 * 12, 1.0)])
def test_shapes_and_initial_weights(build, outputs, gain):
    torch.manual_seed(0)
    model = build((3, 9, 12))
    assert model(torch.randn(4, 3, 9, 12)).shape == (4, outputs)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            assert not module.bias.any()
            assert module.weight.square().mean().item() * module.weight[0].numel() == pytest.approx(gain,
                                                                                                    rel=0.3)


def test_children_are_stages_and_the_output_is_theirs_one_after_the_other():
    for model in (residual_cnn((1, 8, 8), 3, layers=2, channels=4), mlp((1, 8, 8), 3, depth=3),
                  autoencoder((1, 8, 8))):
        state = torch.randn(2, 1, 8, 8)
        expected = model(state)
        assert all(any(True for _ in child.parameters()) for child in model)
        for child in model:
            state = child(state)
        torch.testing.assert_close(state, expected)


def test_the_character_model_does_not_see_what_comes():
    torch.manual_seed(0)
    model = CharacterModel(11, width=16, blocks=1, heads=2, length=8)
    text = torch.randint(11, (1, 8))
    changed = text.clone()
    changed[0, 5] = (text[0, 5] + 1) % 11
    torch.testing.assert_close(model(text)[:, :5], model(changed)[:, :5])
    assert not torch.allclose(model(text)[:, 5:], model(changed)[:, 5:])


@pytest.mark.parametrize("build", [
    lambda: residual_cnn((28, 28), 10), lambda: residual_cnn((1, 3, 28), 10), lambda: residual_cnn(layers=0),
    lambda: residual_cnn(channels=2.5), lambda: mlp((4,), 0), lambda: autoencoder((4,), widths=()),
    lambda: autoencoder((4,), widths=(3, -1))])
def test_wrong_sizes_are_refused(build):
    with pytest.raises(ExperimentError, match="expected"):
        build()
