"""The matrices of nn.RNN, LSTM and GRU are stages: their rows are the inputs and hidden states of every layer
and direction."""

import warnings
from collections.abc import Callable
from itertools import product

import pytest
import torch
from optim_builders import assert_close
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from pontryagin.optim import EMSA
from pontryagin.trajectory.capture import capture

KINDS = [nn.RNN, nn.LSTM, nn.GRU]


def cell_of(module: nn.RNNBase, layer: int, end: str) -> nn.RNNCellBase:
    """The cell of one layer and direction, with its weights."""
    kind = {"RNN": nn.RNNCell, "LSTM": nn.LSTMCell, "GRU": nn.GRUCell}[type(module).__name__]
    cell = kind(getattr(module, f"weight_ih_l{layer}{end}").shape[1], module.hidden_size,
                bias=module.bias).double()
    with torch.no_grad():
        for name, value in cell.named_parameters():
            value.copy_(getattr(module, f"{name}_l{layer}{end}"))
    return cell


def rows_step_by_step(module: nn.RNNBase, x: Tensor) -> dict[str, Tensor]:
    """x (step, sequence, input): what every matrix multiplies, by cells."""
    found = {}
    with torch.no_grad():
        for layer in range(module.num_layers):
            outputs = []
            for end in ("", "_reverse")[:1 + module.bidirectional]:
                cell, h = cell_of(module, layer, end), x.new_zeros(x.shape[1], module.hidden_size)
                state, before, after = (h, h), [], []
                for step in x.flip(0) if end else x:
                    before.append(state[0])
                    new = cell(step, state if isinstance(cell, nn.LSTMCell) else state[0])
                    state = new if isinstance(new, tuple) else (new, h)
                    after.append(state[0])
                outputs.append(torch.stack(after[::-1] if end else after))
                found[f"weight_ih_l{layer}{end}"] = x.flatten(0, 1)
                found[f"weight_hh_l{layer}{end}"] = torch.cat(before)
            x = torch.cat(outputs, 2)
    return found


@pytest.mark.parametrize(("kind", "layers", "bidirectional", "batch_first", "bias"),
                         [*product(KINDS, [1, 2], [False, True], [True], [True]),
                          (nn.GRU, 3, True, False, False)])
def test_moments_are_those_of_cells_step_by_step(kind: Callable[..., nn.RNNBase], layers: int,
                                                 bidirectional: bool, batch_first: bool, bias: bool) -> None:
    torch.manual_seed(0)
    module = kind(3, 4, layers, batch_first=batch_first, bidirectional=bidirectional, bias=bias).double()
    x = torch.randn(6, 5, 3, dtype=torch.float64)
    stages, _hooks = capture(module, None)
    module(x)[0].square().sum().backward()
    rows = rows_step_by_step(module, x.transpose(0, 1) if batch_first else x)
    assert {stage.map.weight for stage in stages} == rows.keys()
    for stage in stages:
        taken, expected = stage.moments.take(), rows[stage.map.weight]
        assert taken is not None
        assert_close(taken.mean[0], expected.mean(0))
        assert_close(taken.product[0], torch.cov(expected.mT, correction=0))


def test_a_first_state_that_is_given_is_the_first_row() -> None:
    torch.manual_seed(0)
    module, x, h = nn.GRU(3, 4), torch.randn(1, 2, 3), torch.randn(1, 2, 4)
    stages, _hooks = capture(module, None)
    module(x, h)[0].sum().backward()
    taken = next(stage for stage in stages if stage.map.weight == "weight_hh_l0").moments.take()
    assert taken is not None
    assert_close(taken.mean[0], h[0].mean(0), 1e-6)


class Tagger(nn.Module):
    def __init__(self, packed: bool) -> None:
        super().__init__()
        self.packed, self.core, self.head = packed, nn.LSTM(3, 8, 2, batch_first=True), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.packed:
            _, (last, _) = self.core(pack_padded_sequence(x, [x.shape[1]] * len(x), batch_first=True))
            return self.head(last[-1])
        return self.head(self.core(x)[0][:, -1])


@pytest.mark.parametrize("packed", [False, True])
def test_a_recurrent_network_learns_and_packed_sequences_are_named(packed: bool) -> None:
    torch.manual_seed(0)
    model, x = Tagger(packed), torch.randn(32, 6, 3)
    y, losses = x.sum((1, 2))[:, None].tanh(), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = EMSA(model)
        for _ in range(40):
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < (0.5 if packed else 0.1) * losses[0]
    named = {row.name for row in optimizer.stages().rows if row.maximized == "AdamW"}
    assert ("core.weight_hh_l0" in named) == packed
    assert any("core.weight_hh_l0" in str(each.message) for each in caught) == packed


def test_sequences_are_taken_at_irregular_places() -> None:
    """Every other sequence is of zeros: a fixed distance would see those alone, or none of them."""
    module, x = nn.RNN(2, 3), torch.ones(4, 64, 2)
    x[:, ::2] = 0
    stages, _hooks = capture(module, None)
    module(x)[0].sum().backward()
    taken = stages[0].moments.take()
    assert taken is not None
    assert 0 < taken.mean[0, 0] < 1
