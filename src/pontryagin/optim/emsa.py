"""EMSA: the maximization of the augmented Hamiltonian as a torch optimizer for any module."""

import sys
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.optim import adamw
from pontryagin.optim import averaging as averages
from pontryagin.optim.acceptance import AcceptanceRule
from pontryagin.optim.affine_stage import AffineStage, has_moments
from pontryagin.optim.bank import Bank, Member, Move, banks_of
from pontryagin.optim.budget import is_due, is_glance_due, period
from pontryagin.optim.capture import capture
from pontryagin.optim.communication import largest_over_processes
from pontryagin.optim.constrained import Constraints, ModelSets
from pontryagin.optim.growth import Spread, spreads_over_processes
from pontryagin.optim.precision import full_precision
from pontryagin.optim.table import StageTable, rows_of
from pontryagin.problem import NonFiniteError, ProblemError

_LIKE_PARAMETERS = {"mean_control", "last_control", "first", "second"}
"""Entries of the state that lie where the parameter does, also of a scalar one."""
Trained = tuple[AffineStage, nn.Parameter, nn.Parameter | None]
"""A stage that is maximized as such, with its trained weight and bias."""


class EMSA(torch.optim.Optimizer):
    """Extended method of successive approximations with the closed-form argmax of affine stages.

    Every Linear, convolution (plain or transposed), Embedding and normalization is a stage z = W x + b, maximized by itself:
    with G, g minus the gradients of the loss, s and A_c the running mean and centred second moment of x,

        dW = (G - g s^T) (A_c + delta I)^-power,   db = g - dW s,   delta = damping * mean(diag A_c)
        W_i <- W_i + lr * dW_i / rho_i,   rho_i = running root mean square of the change of output z_i that dW_i, db_i cause

    with Nesterov momentum after the solve. A Linear that sees at least twice as many rows per batch as it has inputs or outputs
    takes the step bounded in the operator norm instead (operator_step). So lr is the change of every output per step, root mean
    square, in units of that output: it carries over between layers and networks. power = 1 is the argmax with a state penalty
    alone ([LCTE] Algorithm 2); the default 1/2 also whitens the noise of G. Parameters outside any supported module are trained
    by AdamW with the rate lr * fallback, and named in one warning.

    The controls are averaged over about the last 1 / (averaging + 1) of all steps. `eval()` puts the averages into the model,
    for evaluation and saving, and `train()` the controls back, bit by bit, before the next step; a loop that calls neither works
    with the controls alone. (Hugging Face's Trainer calls both around an evaluation.) averaging: None for none;
    there is none either with admissible or acceptance, whose promises are the controls'. Running statistics of batch
    normalization stay those of the controls.

    Moments are renewed as often as the budget allows; between, glances at mean and variance of the inputs let them follow states
    that grow, as those of deep networks do in the first steps (growth.py).

    model: the module; hooks on its submodules see their inputs. params: its parameters or param groups, if not all of them;
    lr, damping, power, momentum, memory (of rho), weight_decay (decoupled), fallback and averaging can be set per group.
    budget: moments and their factorizations may cost this share of the propagation, counted in flops. rank: beyond twice
    so many inputs the metric is kept on a leading subspace of this rank, the rest by its mean. rows: positions of a batch that
    enter the moments (None: all). strict: refuse parameters outside any stage. acceptance: accept/reject with a closure.

    admissible: a set for all matrices, or sets by names of submodules or parameters or patterns of them; the parameters are
    projected at once and lie in their sets after every step. Over discrete sets (Binary, Ternary, Codebook) the elementwise
    argmax of the averaged Hamiltonian in the metric of the inputs' variances moves a share lr * moves of the entries per step;
    other sets are projected onto after the step. nonzero (per group): over Ternary a price on every non-zero weight, set so that
    this share of the group's ternary weights is left, in proportion to rows + inputs of each matrix.

    Raises ProblemError for wrong settings and for sharded parameters, NonFiniteError when a gradient or the closure's loss is
    not finite: nothing has been changed then.
    """

    def __init__(
        self,
        model: nn.Module,
        params: Iterable[Any] | None = None,
        *,
        lr: float = 0.03,
        damping: float = 0.1,
        power: float = 0.5,
        momentum: float = 0.6,
        memory: float = 0.95,
        weight_decay: float = 0.0,
        fallback: float = 0.3,
        averaging: float | None = 8.0,
        budget: float = 0.025,
        rank: int = 32,
        rows: int | None = 512,
        strict: bool = False,
        acceptance: AcceptanceRule | None = None,
        admissible: ModelSets | None = None,
        moves: float = 1 / 30,
        nonzero: float | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ProblemError(f"EMSA expects a torch module, found {type(model).__name__}: it has to see the inputs of the "
                               "layers; pass parameters by params=")
        if any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
            raise ProblemError("EMSA: the model has lazy parameters without a shape; run it on one batch first")
        if _is_sharded(model):
            raise ProblemError("EMSA: the model's parameters are sharded (fully_shard), and an argmax needs its stage's whole "
                               "gradient: use DistributedDataParallel, or shard only parts that another optimizer trains")
        defaults = {"lr": lr, "damping": damping, "power": power, "momentum": momentum, "memory": memory,
                    "weight_decay": weight_decay, "fallback": fallback, "moves": moves, "nonzero": nonzero, "steps": 0,
                    "averaging": averaging, "averaged": False, "refresh_every": 1, "relaxation": 1.0}
        if not (budget > 0 and rank >= 1 and (rows is None or rows >= 8)):
            raise ProblemError(f"EMSA: expected budget > 0, rank >= 1, rows >= 8 or None, found {budget}, {rank}, {rows}")
        self.budget, self.rank, self.acceptance = budget, rank, acceptance
        self._may_average = admissible is None and acceptance is None
        captured, self._hooks = capture(model, rows)
        self._constraints = Constraints(model, admissible, captured)
        if self._constraints.discrete and acceptance is not None:
            raise ProblemError("acceptance divides steps, which discrete sets do not allow: leave out the one or the other")
        free = [stage for stage in captured if id(stage.weight) not in self._constraints.discrete]
        self._affine = [AffineStage(stage, rank, rows) for stage in free]
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._bypassed: set[int] = set()
        self._banks: list[Bank] = []
        self._together: list[Hashable] | None = None
        self._constructed = False
        super().__init__(model.parameters() if params is None else params, defaults)
        self._constructed = True
        self._report_outside(self.param_groups, strict)
        self._constraints.start()
        self._arm()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """More parameters of the same model, such as layers that have been unfrozen."""
        super().add_param_group(param_group)
        try:
            _check_group(self.param_groups[-1])
            self._constraints.check(self.param_groups[-1])
            self._check_members(self.param_groups[-1])
        except ProblemError:
            del self.param_groups[-1]
            raise
        if self._constructed:
            self._report_outside(self.param_groups[-1:], strict=False)
            self._arm()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every stage. closure: computes the loss and its gradients; it may return None."""
        if self.param_groups[0]["averaged"]:
            self._forget()
            raise ProblemError("the model holds the averages, as eval() put them there: call optimizer.train() before the next "
                               "batch")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
            if loss is not None and not torch.as_tensor(loss).isfinite().all():
                self._forget()
                raise NonFiniteError(f"the loss of the closure is {loss}: nothing has been changed; look at this batch")
        elif self.acceptance is not None:
            raise ProblemError("acceptance needs a closure that returns the loss: optimizer.step(closure)")
        self._check_gradients()
        trained = list(self._trained())
        with full_precision(self.param_groups[0]["params"][0].device):
            self._refresh(trained)
            moves = self._moves(trained)
            self._constraints.step(self.state, self._groups())
        if self.acceptance is None or closure is None:
            self._apply(moves, 1.0)
        else:
            self._search(moves, closure, loss)
        for group in self.param_groups:
            group["steps"] += 1
            if self._keeps_averages(group):
                averages.remember(self._known(group), group["steps"], group["averaging"])
        self._arm()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's; what was seen of the inputs of these gradients is dropped with them."""
        super().zero_grad(set_to_none)
        for stage in self._affine:
            stage.captured.forget()

    @torch.no_grad()
    def eval(self) -> None:
        """Put the averages of the controls into the model, to be evaluated or saved. Again: nothing."""
        self._show(True, averages.show)

    @torch.no_grad()
    def train(self) -> None:
        """Put the controls back, as they were, for the next batch. Again: nothing."""
        self._show(False, averages.hide)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but every tensor keeps its own dtype (moments of a bfloat16 model are float32).

        Raises ProblemError for a state that was saved between eval() and train() and lacks the controls: a distributed
        checkpoint keeps what a fresh optimizer has, so call train() before it is written.
        """
        _check_shown(state_dict)
        super().load_state_dict(state_dict)
        for group in self.param_groups:  # older checkpoints know no averages
            group.setdefault("averaging", self.defaults["averaging"])
            group.setdefault("averaged", False)
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        numbers = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        for number, parameter in zip(numbers, parameters, strict=True):
            for key, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, Tensor):
                    counts = value.ndim == 0 and key not in _LIKE_PARAMETERS  # these are read without waiting for a device
                    device = torch.device("cpu") if counts else parameter.device
                    self.state[parameter][key] = value.detach().clone().to(device)
        self._banks, self._together = [], None
        for stage in self._affine:
            stage.captured.forget()
        self._arm()

    def stages(self) -> StageTable:
        """What each stage is, how it is maximized and what it costs: print it."""
        stages, outside = [stage for stage, _, _ in self._trained()], self._outside(self.param_groups)
        return StageTable(self._constraints.rows() + rows_of(stages, outside, self.param_groups[0]["refresh_every"]))

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("an EMSA optimizer holds hooks on its model and cannot be copied or pickled: save state_dict(), and make "
                        "a new EMSA(model) to load it into")

    def _show(self, averaged: bool, change: Callable[[Tensor, averages.State], None]) -> None:
        if self.param_groups[0]["averaged"] == averaged:
            return
        for group in self.param_groups:
            group["averaged"] = averaged
            if not averaged or self._keeps_averages(group):
                for parameter, state in self._known(group):
                    change(parameter, state)

    def _keeps_averages(self, group: dict[str, Any]) -> bool:
        return self._may_average and group["averaging"] is not None

    def _known(self, group: dict[str, Any]) -> list[tuple[nn.Parameter, dict[str, Any]]]:
        """The parameters that have been trained, with their states."""
        return [(parameter, self.state[parameter]) for parameter in group["params"] if self.state.get(parameter)]

    def _groups(self) -> dict[int, dict[str, Any]]:
        return {id(parameter): group for group in self.param_groups for parameter in group["params"]}

    def _trained(self) -> Iterator[Trained]:
        """The stages that are maximized as such, with their trained weight and bias, in whatever groups these are."""
        members = self._groups().keys()
        for stage in self._affine:
            weight, bias = stage.parameters(members)
            if weight is not None and id(weight) not in self._bypassed:
                yield stage, weight, bias

    def _moves(self, trained: list[Trained]) -> list[Move]:
        """The changes of all parameters; running means are updated. Weight and bias of a stage have each its own lr."""
        moves: list[Move] = []
        members, done = self._members(trained)
        spreads = self._glances(trained)
        for bank in self._banks_of(members):
            if spreads:
                bank.follow(spreads, self.param_groups)
            moves += bank.step(self.param_groups)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None or not parameter.requires_grad or id(parameter) in self._constraints.discrete:
                    continue
                if id(parameter) not in done:
                    state = self.state[parameter]
                    if "first" not in state:
                        state.update(adamw.initial(parameter))
                    moves.append((parameter, adamw.direction(state, parameter.grad) * (group["lr"] * group["fallback"])))
        return _with_decay(moves, self.param_groups)

    def _members(self, trained: list[Trained]) -> tuple[list[Member], set[int]]:
        """The stages that can move now, and the parameters that nothing else may move."""
        numbers = {id(parameter): n for n, group in enumerate(self.param_groups) for parameter in group["params"]}
        members, done = [], set()
        for stage, weight, bias in trained:
            state = self.state[weight]
            if weight.grad is not None:
                if has_moments(state):
                    groups = numbers[id(weight)], numbers[id(weight if bias is None else bias)]
                    members.append(Member(stage, weight, bias, state, groups))
                elif not stage.captured.seen:
                    if weight.grad.any():
                        self._bypass(stage.name, weight)
                        continue
                    stage.initialize(state, bias is not None)
            if bias is not None and state and bias not in self.state:  # checkpoints expect an entry for every parameter
                self.state[bias]["with_weight"] = torch.tensor(True)
            done |= {id(weight), id(bias)}
        return members, done

    def _banks_of(self, members: list[Member]) -> list[Bank]:
        """As in the last step, unless other stages take part in this one."""
        together = [member.identity for member in members]
        if self._together != together:
            self._banks, self._together = banks_of(members), together
        return self._banks

    def _refresh(self, trained: list[Trained]) -> None:
        refresh = work = 0.0
        for stage, weight, bias in trained:
            if stage.captured.armed:
                stage.refresh(self.state[weight], bias is not None)
            refresh, work = refresh + stage.refresh_work, work + stage.propagation_work
        if any(stage.captured.armed for stage, _, _ in trained):
            for bank in self._banks:
                bank.renew()
        if self._due:
            every = largest_over_processes(period(refresh, work, self.budget), self.param_groups[0]["params"][0].device)
            for group in self.param_groups:
                group["refresh_every"] = every

    def _glances(self, trained: list[Trained]) -> dict[AffineStage, Spread | None]:
        """What was seen of the inputs of the last batch, of the stages that glanced at it."""
        glancing = [stage for stage, weight, _ in trained if stage.captured.glancing and has_moments(self.state[weight])]
        if not glancing:
            return {}
        found = spreads_over_processes([stage.captured.glance.take() for stage in glancing],
                                       [self.state[stage.captured.weight]["mean"] for stage in glancing])
        return dict(zip(glancing, found, strict=True))

    def _forget(self) -> None:
        """Drop what has been seen of a batch that is not used."""
        for stage in self._affine:
            stage.captured.forget()
            stage.captured.seen = False
        self._constraints.forget()

    def moved(self) -> dict[str, float]:
        """The share of entries that the last step moved, for each parameter in a discrete set."""
        return {stage.name: float(self.state[stage.weight]["moved"]) for stage in self._constraints.discrete.values()
                if "moved" in self.state.get(stage.weight, {})}

    def _apply(self, moves: list[Move], factor: float) -> None:
        _add(moves, factor)
        self._constraints.project()

    def _search(self, moves: list[Move], closure: Callable[[], Any], loss: Any) -> None:
        assert self.acceptance is not None
        if loss is None:
            raise ProblemError("acceptance needs the loss: the closure returned None")
        group = self.param_groups[0]
        for stage in self._affine:  # the inputs of a trial are not those of a step
            stage.captured.armed = stage.captured.glancing = False
        before = [(parameter, parameter.clone()) for parameter, _ in moves]
        promised, value = _predicted(moves), torch.as_tensor(loss).item()  # trials replace the gradients
        for _ in range(self.acceptance.attempts):
            length = group["relaxation"]
            self._apply(moves, length)
            with torch.enable_grad():
                trial = torch.as_tensor(closure()).item()
            accepted, relaxation = self.acceptance.judge(length, length * promised, value, trial)
            self._relax(relaxation)
            if accepted:
                return
            for parameter, old in before:
                parameter.copy_(old)

    def _relax(self, factor: float) -> None:
        for group in self.param_groups:
            group["relaxation"] = factor

    def _arm(self) -> None:
        """Look at the next batch if a refresh is due, and in any case at stages that have never been seen."""
        group = self.param_groups[0]
        self._due = is_due(group["steps"] + 1, group["refresh_every"])
        glancing = is_glance_due(group["steps"] + 1)
        members = self._groups().keys()
        for stage in self._affine:
            state = self.state.get(stage.captured.weight, {})
            trained = id(stage.captured.weight) in members
            stage.arm(trained and (self._due or not has_moments(state)), trained and glancing, state)
        self._constraints.arm(lambda weight: self.state.get(weight, {}))

    def _check_gradients(self) -> None:
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        finite = _finite([parameter.grad for parameter in parameters if parameter.grad is not None])
        if finite.all():
            return
        self._forget()
        name = next(self._names[id(parameter)] for parameter, fine in zip(parameters, finite, strict=True) if not fine)
        raise NonFiniteError(f"the gradient of {name} holds values that are NaN, infinite or too large to be squared: nothing "
                             "has been changed; skip this batch or look at its loss")

    def _check_members(self, group: dict[str, Any]) -> None:
        for parameter in group["params"]:
            if id(parameter) not in self._names:
                raise ProblemError(f"params holds a parameter of shape {tuple(parameter.shape)} that is not one of the model's")

    def _outside(self, groups: Iterable[dict[str, Any]]) -> list[str]:
        """Names of the trained parameters of some groups that belong to no stage."""
        inside = {id(parameter) for _, weight, bias in self._trained() for parameter in (weight, bias)}
        inside |= self._constraints.discrete.keys() | self._constraints.biases
        return [self._names[id(parameter)] for group in groups for parameter in group["params"]
                if parameter.requires_grad and id(parameter) not in inside]

    def _report_outside(self, groups: Iterable[dict[str, Any]], strict: bool) -> None:
        names = ", ".join(self._outside(groups))
        if names and strict:
            raise ProblemError(f"strict: these parameters belong to no affine stage: {names}; freeze them or drop strict=True")
        if names:
            warnings.warn(f"EMSA trains these parameters, which belong to no affine stage, by AdamW: {names}", stacklevel=3)

    def _bypass(self, name: str, weight: Tensor) -> None:
        """A stage whose inputs never came through its hook, such as F.linear(x, module.weight)."""
        warnings.warn(f"EMSA has seen no inputs of {name}: its module is not called in the forward pass (or was compiled "
                      "before the optimizer was made); it is trained by AdamW", stacklevel=7)
        self._bypassed.add(id(weight))


def _check_shown(state_dict: dict[str, Any]) -> None:
    shown = any(group.get("averaged") for group in state_dict["param_groups"])
    averaged = [state for state in state_dict["state"].values() if "mean_control" in state]
    if shown and averaged and not any("last_control" in state for state in averaged):
        raise ProblemError("this state was saved while the model held the averages, and the controls are not in it: call "
                           "optimizer.train() before such a checkpoint is written")


def _finite(gradients: list[Tensor]) -> Tensor:
    """Whether the norm of each is finite, on one device."""
    if not gradients:
        return torch.ones(0, dtype=torch.bool)
    values = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    norms = torch._foreach_norm(values, 2, dtype=torch.float64 if values[0].dtype == torch.float64 else torch.float32)
    return torch.stack([norm.to(norms[0].device) for norm in norms]).isfinite()


def _with_decay(moves: list[Move], groups: list[dict[str, Any]]) -> list[Move]:
    """Decoupled weight decay of the matrices that have a gradient: one change a parameter."""
    rates = {id(parameter): group["lr"] * group["weight_decay"] for group in groups if group["weight_decay"]
             for parameter in group["params"] if parameter.ndim > 1}
    if not rates:
        return moves
    return [(parameter, change.sub(parameter, alpha=rates[id(parameter)]) if id(parameter) in rates else change)
            for parameter, change in moves]


def _predicted(moves: list[Move]) -> float:
    """The decrease of the loss that the whole moves promise to first order."""
    return -sum(float((parameter.grad.to(change.dtype) * change).sum()) for parameter, change in moves
                if parameter.grad is not None)


def _is_sharded(model: nn.Module) -> bool:
    """Whether a parameter is a DTensor. That module takes seconds to import, and without it there are none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and any(isinstance(parameter, module.DTensor) for parameter in model.parameters())


def _add(moves: list[Move], factor: float) -> None:
    if moves:
        torch._foreach_add_([parameter for parameter, _ in moves],
                            [change.to(parameter.dtype) for parameter, change in moves], alpha=factor)


def _check_group(group: dict[str, Any]) -> None:
    limits = {"lr": (0, float("inf")), "damping": (0, float("inf")), "power": (0, 1), "momentum": (0, 0.999),
              "memory": (0, 0.9999), "weight_decay": (0, float("inf")), "fallback": (0, float("inf")), "moves": (0, float("inf"))}
    for name, (low, high) in limits.items():
        if not low <= float(group[name]) <= high:
            raise ProblemError(f"EMSA {name}: expected a number in [{low}, {high}], found {group[name]}")
    if group["averaging"] is not None and not 0 <= float(group["averaging"]) < float("inf"):
        raise ProblemError(f"EMSA averaging: expected a number >= 0 or None, found {group['averaging']}")
    if group["nonzero"] is not None and not 0 < float(group["nonzero"]) <= 1:
        raise ProblemError(f"EMSA nonzero: expected a share of the weights in (0, 1], found {group['nonzero']}")
