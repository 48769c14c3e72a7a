"""The paper's extended MSA as a trainer of modules."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.maximizer import LBFGS
from pontryagin.problem import ControlProblem, Controls, ProblemError, stage
from pontryagin.problem.ignored import counted
from pontryagin.run.errors import ExperimentError
from pontryagin.run.methods.method import OWN_SCHEDULE, Method, MethodStyle
from pontryagin.run.objective import Objective
from pontryagin.run.trainer import Batch, StepRecord
from pontryagin.update import ExtendedMSA, PaperPenalty, Plain


class PaperEMSA:
    """[LCTE] Algorithm 2 on mini-batches, as its experiments ran it: every child of an nn.Sequential is a
    stage.

    An iteration propagates the batch, and at every stage maximizes the full augmented Hamiltonian, with both
    penalties at the paper's rho (PaperPenalty), by `iterations` of L-BFGS from the present controls; every
    argmax is taken. The controls are the module's parameters: they are read from it before and written to it
    after every step, so a state is that of the module.
    rho is constant: a schedule of learning rates leaves it alone, as the paper did.

    Raises ExperimentError for a model that is no nn.Sequential, ProblemError for one whose stages are no
    fixed function of each sample (batch normalization, dropout).
    """

    def __init__(self, model: nn.Module, objective: Objective, rho: float, iterations: int = 10) -> None:
        if not isinstance(model, nn.Sequential):
            raise ExperimentError("emsa-paper needs the stages of the network one after the other: expected "
                                  f"an nn.Sequential with a child a stage, found {type(model).__name__}")
        frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
        if frozen:
            raise ExperimentError("emsa-paper maximizes over all parameters of a stage; these are frozen: "
                                  f"{', '.join(frozen)}")
        self._model, self.objective, self.rho = model, objective, rho
        self.maximizer = LBFGS(iterations=iterations)
        PaperPenalty(rho)  # a wrong rho is refused here
        if not any(True for _ in model.parameters()):
            raise ProblemError("emsa-paper: the network has no parameters")
        self.stages = [stage(child) for child in model]
        self.iteration = 0

    @property
    def model(self) -> nn.Module:
        """The network, with the controls of the last iteration."""
        return self._model

    def evaluated(self) -> AbstractContextManager[nn.Module]:
        """The network."""
        return nullcontext(self._model)

    def step(self, batch: Batch) -> StepRecord:
        """One iteration, of the samples whose class is not ignored; without any nothing is changed.

        Raises NonFiniteError, with the model as before, when states, costates or the new J are not finite.
        """
        inputs, targets = batch
        if self.objective.classifies and targets.ndim == 1 and not (kept := counted(targets)).all():
            inputs, targets = inputs[kept], targets[kept]
        if not len(targets):
            self.iteration += 1
            return StepRecord(0.0, evaluations=0)
        problem = ControlProblem(self.stages, self._cost, inputs, targets)
        solver = ExtendedMSA(problem, self._controls(), maximizer=self.maximizer, acceleration=Plain(),
                             penalty=PaperPenalty(self.rho))
        solver.iteration = self.iteration
        record = solver.step()
        self._write(solver.controls)
        self.iteration = solver.iteration
        return StepRecord(record.objective_before, record.evaluations, record.accepted,
                          record.penalties.rho_state, record.optimality_gap, record.rejected)

    def set_factor(self, factor: float) -> None:
        """rho is constant."""

    def state_dict(self) -> dict[str, Any]:
        """The number of iterations; everything else is in the model."""
        return {"iteration": self.iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting from there."""
        self.iteration = int(state["iteration"])

    def _cost(self, state: Tensor, target: Tensor) -> Tensor:
        """Of each sample; two samples or more tell a mean from that."""
        return self.objective.cost(state, target)

    def _controls(self) -> list[Tensor]:
        return [torch.cat([value.detach().reshape(-1) for value in child.parameters()]) if one.size
                else one.start for one, child in zip(self.stages, self._model, strict=True)]

    @torch.no_grad()
    def _write(self, controls: Controls) -> None:
        for one, child, control in zip(self.stages, self._model, controls, strict=True):
            for name, value in one.parameters(control).items():
                child.get_parameter(name).copy_(value)


def emsa_paper(model: nn.Module, objective: Objective, rate: float, *, iterations: int = 10) -> PaperEMSA:
    """The paper's argmax by L-BFGS; its rate is 1 / rho, rho in the paper's units."""
    return PaperEMSA(model, objective, 1 / rate, iterations)


EMSA_PAPER = Method("emsa-paper", emsa_paper, (100.0, 30.0, 300.0),
                    MethodStyle("paper's E-MSA", "#56B4E9", (0, (5, 1.5)), 1.9),
                    leaves=OWN_SCHEDULE | {"clip_norm", "autocast"})
