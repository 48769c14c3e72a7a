import pytest
import torch
from torch import nn

from pontryagin.hamiltonian import augmented, paper_penalties
from pontryagin.maximizer import LBFGS
from pontryagin.problem import ControlProblem, CrossEntropy, NonFiniteError, ProblemError, stage
from pontryagin.run.errors import ExperimentError
from pontryagin.run.methods import METHODS
from pontryagin.run.methods.paper_emsa import PaperEMSA
from pontryagin.run.models import residual_cnn
from pontryagin.run.objective import OBJECTIVES
from pontryagin.trajectory import Propagation, group_stages
from pontryagin.update import ExtendedMSA, Fixed, Plain

CLASSES, SQUARES = OBJECTIVES["cross-entropy"], OBJECTIVES["squared-error"]


def small(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(2)
    return residual_cnn((1, 8, 8), 3, layers=2, channels=4).to(dtype)


def batch(samples: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return (torch.randn(samples, 1, 8, 8, dtype=torch.float64, generator=generator),
            torch.randint(3, (samples,), generator=generator))


def test_every_stage_raises_the_augmented_hamiltonian_with_the_papers_penalties():
    """Against H~ of states and costates before the step, and against the batched solver on the explicit
    problem."""
    model, (x, y) = small(), batch()
    problem = ControlProblem([stage(child) for child in model], CrossEntropy(), x, y)
    penalties = paper_penalties(0.3, 10)
    solver = ExtendedMSA(problem, maximizer=LBFGS(iterations=3), penalty=Fixed(penalties),
                         acceleration=Plain())
    solver.step()
    trajectory = Propagation(problem, problem.initial_controls()).trajectory()
    PaperEMSA(model, CLASSES, rho=0.3, iterations=3).step((x, y))
    after = [torch.cat([p.detach().reshape(-1) for p in child.parameters()]) for child in model]
    for group in group_stages(problem, problem.initial_controls(), trajectory, None):
        for number, index in enumerate(group.indices):
            torch.testing.assert_close(after[index], solver.controls[index])
            data = tuple(part[number] for part in group.data)
            values = [augmented(group.stage, control, data, penalties)
                      for control in (group.control[number], after[index])]
            assert values[1] > values[0]


def test_the_record_is_of_the_step_and_the_module_holds_the_controls():
    model, (x, y) = small(), batch()
    loss = CLASSES.mean(model(x), y).item()
    trainer = PaperEMSA(model, CLASSES, rho=0.3)
    records = [trainer.step((x, y)) for _ in range(3)]
    assert records[0].loss == pytest.approx(loss)
    assert records[0].rho == pytest.approx(10 * 0.3)
    assert records[0].optimality_gap > 0
    assert all(record.accepted for record in records)
    assert records[0].evaluations > 10
    assert CLASSES.mean(model(x), y).item() < loss
    assert trainer.state_dict() == {"iteration": 3}


def test_the_schedule_leaves_rho_alone():
    first, second = small(), small()
    for model, factor in ((first, 1.0), (second, 0.1)):
        trainer = PaperEMSA(model, CLASSES, rho=0.3, iterations=2)
        trainer.set_factor(factor)
        trainer.step(batch())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_its_rate_is_one_over_rho():
    assert METHODS["emsa-paper"].trainer(small(), CLASSES, 4.0).rho == 0.25


def test_regression_and_stages_without_controls():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x, _ = batch()
    y = torch.randn(10, 2, dtype=torch.float64)
    trainer = PaperEMSA(model, SQUARES, rho=3.0, iterations=5)
    losses = [trainer.step((x, y)).loss for _ in range(4)]
    assert losses == sorted(losses, reverse=True)


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_models_that_are_no_stages_are_refused():
    with pytest.raises(ExperimentError, match=r"nn\.Sequential.*Holder"):
        PaperEMSA(Holder(), CLASSES, 1.0)
    with pytest.raises(ProblemError, match="BatchNorm"):
        PaperEMSA(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), CLASSES, 1.0)
    with pytest.raises(ProblemError, match="no parameters"):
        PaperEMSA(nn.Sequential(nn.Tanh()), CLASSES, 1.0)
    frozen = small()
    frozen[0].requires_grad_(False)
    with pytest.raises(ExperimentError, match=r"frozen: 0\.0\.weight"):
        PaperEMSA(frozen, CLASSES, 1.0)
    with pytest.raises(ProblemError, match="rho"):
        PaperEMSA(small(), CLASSES, -1.0)


def test_what_is_not_finite_leaves_the_model_as_it_was():
    model, (x, y) = small(), batch()
    trainer = PaperEMSA(model, CLASSES, rho=0.3)
    before = [p.clone() for p in model.parameters()]
    x[3] = float("nan")
    with pytest.raises(NonFiniteError):
        trainer.step((x, y))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert trainer.iteration == 0
