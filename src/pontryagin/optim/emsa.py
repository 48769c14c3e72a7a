"""EMSA: the maximization of the augmented Hamiltonian as a torch optimizer for any module."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import chain
from math import isfinite
from typing import Any

import torch
from torch import Tensor, distributed, nn

from pontryagin.affine.precision import full_precision
from pontryagin.affine.variances import MeanVariance
from pontryagin.distributed.reductions import largest_over_processes, together
from pontryagin.optim import adamw
from pontryagin.optim import averaging as averages
from pontryagin.optim.acceptance import AcceptanceRule
from pontryagin.optim.affine_stage import AffineStage, has_moments
from pontryagin.optim.bank import Bank, Member, Move, Proposal, banks_of
from pontryagin.optim.budget import is_due, is_glance_due, period
from pontryagin.optim.capture import Capture
from pontryagin.optim.constrained import ModelSets
from pontryagin.optim.gradients import largest_entries
from pontryagin.optim.model_stages import ModelStages, Trained
from pontryagin.optim.outside import warn
from pontryagin.optim.probes import variances_over_processes
from pontryagin.optim.saved_state import LIKE_PARAMETERS, check_saved, check_shown
from pontryagin.optim.settings import check_group, check_model, check_rates, check_settings
from pontryagin.optim.table import StageTable, rows_of
from pontryagin.optim.undo import Undo
from pontryagin.problem import NonFiniteError, ProblemError


class EMSA(torch.optim.Optimizer):
    """Extended method of successive approximations with the closed-form argmax of affine stages.

    Every Linear, convolution (plain or transposed), Embedding, normalization, recurrent layer and attention's
    map to queries, keys and values is a stage z = W x + b, maximized by itself: with G, g minus the gradients
    of the loss, s and A_c the running mean and centred second moment of x,

        dW = (G - g s^T) (A_c + delta I)^-power,   db = g - dW s,   delta = damping * mean(diag A_c)
        W_i <- W_i + lr * dW_i / rho_i,   rho_i = running root mean square of the change of output z_i that
        dW_i, db_i cause

    with Nesterov momentum after the solve. A Linear that sees at least twice as many rows per batch as it has
    inputs or outputs takes the step bounded in the operator norm instead (operator_step). So lr is the change
    of every output per step, root mean
    square, in units of that output: it carries over between layers and networks. power = 1 is the argmax with
    a state penalty alone ([LCTE] Algorithm 2); the default 1/2 also whitens the noise of G. The scale of the
    loss means nothing: steps are the same for s times the loss. They become shorter where gradients fade
    (fading.py), and reach no further than the weights themselves allow (reach.py). Parameters outside any
    stage are trained by AdamW with the rate lr * fallback, and named in one warning; so are those of modules
    that turn out to compute something else than an affine map of their inputs.

    The controls are averaged over about the last 1 / (averaging + 1) of all steps. `eval()` puts the averages
    into the model, for evaluation and saving, and `train()` the controls back, bit by bit, before the next
    step; a loop that calls neither works with the controls alone. (Hugging Face's Trainer calls both around
    an evaluation.) averaging: None for none; there is none either with admissible or acceptance, whose
    promises are the controls'. Running statistics of batch normalization stay those of the controls.

    Moments are renewed as often as the budget allows; between, glances at mean and variance of the inputs let
    them follow states that grow, as those of deep networks do in the first steps (growth.py).

    Moments are of exactly the rows whose gradient is in .grad at the step. Nothing is put on the model: while
    a look is due, the hooks that torch calls for every module see the inputs of its layers; detach() takes
    them off, and they go with the optimizer. A copy or pickle of the optimizer has a model of its own, that
    of what it is copied with.

    model: the module. params: its parameters or param groups, if not all of them;
    lr, damping, power, momentum, memory (of rho), weight_decay (decoupled), fallback and averaging can be set
    per group.
    budget: moments and their factorizations may cost this share of the propagation, counted in flops. rank:
    beyond twice so many inputs the metric is kept on a leading subspace of this rank, the rest by its mean.
    rows: positions of a batch that enter the moments (None: all). strict: refuse parameters outside any
    stage. acceptance: accept/reject with a closure.
    process_group: of processes whose gradients are averaged by other means than DistributedDataParallel,
    which names its own.

    admissible: a set for all matrices, or sets by names of submodules or parameters or patterns of them; the
    parameters are projected at once and lie in their sets after every step. Over discrete sets (Binary,
    Ternary, Codebook) the elementwise argmax of the averaged Hamiltonian in the metric of the inputs'
    variances moves a share lr * moves of the entries per step; other sets are projected onto after the step.
    nonzero (per group): over Ternary a price on every non-zero weight, set so that this share of the group's
    ternary weights is left, in proportion to rows + inputs of each matrix.

    Raises ProblemError for wrong settings, and for parameters that are sharded, without values, or have been
    replaced by others; NonFiniteError when a gradient, the closure's loss or a step is not finite: nothing
    has been changed then.
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
        process_group: Any = None,
    ) -> None:
        check_model(model)
        check_settings(budget, rank, rows)
        defaults = {"lr": lr, "damping": damping, "power": power, "momentum": momentum, "memory": memory,
                    "weight_decay": weight_decay, "fallback": fallback, "moves": moves, "nonzero": nonzero,
                    "steps": 0,
                    "averaging": averaging, "averaged": False, "refresh_every": 1, "relaxation": 1.0}
        self.budget, self.rank, self.acceptance = budget, rank, acceptance
        self._process_group, self._settings = process_group, tuple(defaults)  # torch adds to the defaults
        self._may_average = admissible is None and acceptance is None
        self._model, self._rows, self._admissible, self._strict = model, rows, admissible, strict
        self._banks: list[Bank] = []
        self._together: list[Hashable] | None = None
        self._begin()
        if self._constraints.discrete and acceptance is not None:
            raise ProblemError("acceptance divides steps, which discrete sets do not allow: leave out the "
                               "one or the other")
        super().__init__(model.parameters() if params is None else params, defaults)
        self._constructed = True
        self._stages.report(self.param_groups, self._groups(), strict)
        self._constraints.start()
        self._arm()

    def _begin(self) -> None:
        """The model's stages, from the model alone."""
        self._stages = ModelStages(self._model, self._rows, self.rank, self._admissible, self._strict)
        self._constraints = self._stages.constraints
        self._written: dict[int, tuple[int, int]] = {}
        self._constructed = self._told_alone = False

    @property
    def _affine(self) -> list[AffineStage]:
        return self._stages.affine

    @property
    def _capture(self) -> Capture:
        return self._stages.capture

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """More parameters of the same model, such as layers that have been unfrozen, or that it got since."""
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups[-1])
            self._stages.find_new(self.param_groups[-1])
            self._constraints.check(self.param_groups[-1])
        except ProblemError:
            del self.param_groups[-1]
            raise
        if self._constructed:
            self._stages.report(self.param_groups[-1:], self._groups(), strict=False)
            self._stages.want(self.param_groups[-1]["params"])
            self._arm(self.param_groups[-1]["params"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every stage. closure: computes the loss and its gradients; it may return None."""
        if self.param_groups[0]["averaged"]:
            self._stages.forget()
            raise ProblemError("the model holds the averages, as eval() put them there: call "
                               "optimizer.train() before the next batch")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
            if loss is not None and not torch.as_tensor(loss).isfinite().all():
                self._stages.forget()
                raise NonFiniteError(f"the loss of the closure is {loss}: nothing has been changed; look at "
                                     "this batch")
        elif self.acceptance is not None:
            raise ProblemError("acceptance needs a closure that returns the loss: optimizer.step(closure)")
        for group in self.param_groups:
            check_rates(group)
        largest = self._check_gradients()
        looked = self._capture.is_on
        if looked or not self._stages.are_own:
            self._stages.check_own(self._groups(), self.state)
        with together(self._group_of_processes()), full_precision(self._device):
            if looked:
                self._stages.settle(largest, self.state, self._device)
            moves = self._moves(list(self._stages.trained(self._groups())), largest, looked)
        if self.acceptance is None or closure is None:
            self._apply(moves, 1.0)
        else:
            self._search(moves, closure, loss)
        for group in self.param_groups:
            group["steps"] += 1
            if self._keeps_averages(group):
                self._remember(group)
        self._arm()
        return loss

    def _group_of_processes(self) -> Any:
        """That of the DistributedDataParallel around the model, or the user's; None for one process, or
        processes of their own."""
        parallel: Any = self._capture.parallel
        if parallel is not None and parallel._join_config.enable:
            raise ProblemError("EMSA takes moments over all processes in every step, which join() does not "
                               "know of: give every process as many batches")
        if self._process_group is not None:
            return self._process_group
        if parallel is not None:
            return parallel.process_group
        several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
        if several and not self._told_alone:
            self._told_alone = True
            warn("EMSA: there are several processes, but no DistributedDataParallel around the model: each "
                 "takes the moments of its own batches; if gradients are averaged by other means, name their "
                 "group: EMSA(model, process_group=...)")
        return None

    @torch.no_grad()
    def eval(self) -> None:
        """Put the averages of the controls into the model, to be evaluated or saved. Again: nothing."""
        self._show(True, averages.show)

    @torch.no_grad()
    def train(self) -> None:
        """Put the controls back, as they were, for the next batch. Again: nothing. Weights that have been
        loaded into the model in the meantime stay, and are the controls from now on."""
        self._show(False, averages.hide)

    def detach(self) -> None:
        """Take everything off: no pass of the model is looked at before the next step(). Again: nothing."""
        self._capture.off()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but every tensor keeps its own dtype (moments of a bfloat16 model are float32).

        Raises ProblemError, with nothing changed, for the state of another optimizer, of another model or of
        other settings, and for one that was saved between eval() and train() and lacks the controls: a
        distributed checkpoint keeps what a fresh optimizer has, so call train() before it is written.
        """
        if not isinstance(state_dict, dict):
            raise ProblemError("EMSA: expected the dictionary that state_dict() gives, found "
                               f"{type(state_dict).__name__}")
        checked: list[dict[str, Any]] = []

        # after all other hooks, which may replace it
        def check(_: torch.optim.Optimizer, found: dict[str, Any]) -> None:
            check_saved(found, self.param_groups, self._settings, self._stages.entries_of,
                        self._stages.needed_of, lambda parameter: self._stages.names[id(parameter)])
            check_shown(found)
            checked.append(found)

        last = self.register_load_state_dict_pre_hook(check)
        try:
            super().load_state_dict(state_dict)
        finally:
            last.remove()
        for group in self.param_groups:  # older checkpoints know no averages
            group.setdefault("averaging", self.defaults["averaging"])
            group.setdefault("averaged", False)
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        numbers = chain.from_iterable(group["params"] for group in checked[0]["param_groups"])
        for number, parameter in zip(numbers, parameters, strict=True):
            for key, value in checked[0]["state"].get(number, {}).items():
                # these are read without waiting for a device
                counts = value.ndim == 0 and key not in LIKE_PARAMETERS
                device = torch.device("cpu") if counts else parameter.device
                self.state[parameter][key] = value.detach().clone().to(device)
        self._after_loading()

    def stages(self) -> StageTable:
        """What each stage is, how it is maximized and what it costs: print it."""
        known, members = self._stages, self._groups()
        stages = [stage for stage, weight, _ in known.trained(members) if id(weight) not in known.by_adamw]
        rows = rows_of(stages, known.outside(self.param_groups, members, open_too=True),
                       self.param_groups[0]["refresh_every"])
        return StageTable(self._constraints.rows() + rows)

    def __getstate__(self) -> dict[str, Any]:
        """Model and state: a copy has a model of its own, that of what it is copied with."""
        own = ("budget", "rank", "acceptance", "_may_average", "_model", "_rows", "_admissible", "_strict",
               "_settings")
        return super().__getstate__() | {name: getattr(self, name) for name in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_model" not in state:  # torch's load_state_dict: only state and groups
            super().__setstate__(state)
            return
        super().__setstate__(state)
        self._process_group = None  # processes are not copied
        self._begin()
        self._constructed = True
        self._stages.resume(self.state)
        self._after_loading()

    def _after_loading(self) -> None:
        self._banks, self._together, self._written = [], None, {}
        self._stages.keep_closed_out(self.state)
        self._stages.resume(self.state)
        self._arm()
        self._stages.loaded()

    def _show(self, averaged: bool, change: Callable[[Tensor, averages.State], None]) -> None:
        if self.param_groups[0]["averaged"] == averaged:
            return
        for group in self.param_groups:
            group["averaged"] = averaged
            if not averaged or self._keeps_averages(group):
                for parameter, state in self._known(group):
                    if self._is_foreign(parameter):
                        averages.restart(state)
                    change(parameter, state)
                    self._written[id(parameter)] = _mark(parameter)

    def _remember(self, group: dict[str, Any]) -> None:
        known = self._known(group)
        averages.remember(known, group["steps"], group["averaging"])
        for parameter, _ in known:
            self._written[id(parameter)] = _mark(parameter)

    def _is_foreign(self, parameter: Tensor) -> bool:
        """Whether something else has written to a parameter, such as model.load_state_dict, since its average
        was taken."""
        return self._written.get(id(parameter), _mark(parameter)) != _mark(parameter)

    def _keeps_averages(self, group: dict[str, Any]) -> bool:
        return self._may_average and group["averaging"] is not None

    def _known(self, group: dict[str, Any]) -> list[tuple[nn.Parameter, dict[str, Any]]]:
        """The parameters that have been trained, with their states."""
        return [(parameter, self.state[parameter])
                for parameter in group["params"] if self.state.get(parameter)]

    def _groups(self) -> dict[int, dict[str, Any]]:
        return {id(parameter): group for group in self.param_groups for parameter in group["params"]}

    @property
    def _device(self) -> torch.device:
        return next((parameter.device for group in self.param_groups for parameter in group["params"]),
                    torch.device("cpu"))

    def _moves(self, trained: list[Trained], largest: Mapping[int, float], looked: bool) -> list[Move]:
        """The changes of all parameters; running means are updated, unless a change is not finite.

        Weight and bias of a stage have each its own lr.
        """
        groups = self._groups()
        self._constraints.prepare(self.state, groups)
        for stage, weight, _ in trained:
            if has_moments(self.state[weight]):
                stage.conform(self.state[weight])
        undo = Undo([self.state[weight] for _, weight, _ in trained] if looked else [])
        self._refresh(trained)
        members, done = self._stages.members(trained, largest, self.param_groups, self.state)
        banks = self._banks_of(members)
        if spreads := self._glances(trained):
            for bank in banks:
                bank.follow(spreads, self.param_groups)
        proposals = [bank.propose(self.param_groups, largest, self.acceptance is None) for bank in banks]
        others = [parameter for group in self.param_groups for parameter in group["params"]
                  if id(parameter) in largest and id(parameter) not in done
                  and id(parameter) not in self._constraints.discrete]
        directions = [adamw.direction(self._adamw_state(parameter), parameter.grad, largest[id(parameter)])
                      for parameter in others]
        self._check_changes(proposals, others, directions, undo)
        moves = [move for proposal in proposals for move in proposal.bank.take(proposal, self.param_groups)]
        for parameter, (change, new) in zip(others, directions, strict=True):
            self.state[parameter].update(new)
            group = groups[id(parameter)]
            change = change * (group["lr"] * group["fallback"])
            moves.append((parameter, torch.view_as_complex(change) if parameter.is_complex() else change))
        self._constraints.step(self.state, groups, largest)
        return _with_decay(moves, self.param_groups)

    def _adamw_state(self, parameter: Tensor) -> dict[str, Any]:
        state = self.state[parameter]
        real = torch.view_as_real(parameter) if parameter.is_complex() else parameter
        known = state.get("first")
        if known is None or known.device != real.device:
            return state | adamw.initial(parameter)
        if known.dtype != (dtype := adamw.wide(real.dtype)):
            return state | {name: state[name].to(dtype) for name in ("first", "second")}
        return state

    def _check_changes(self, proposals: list[Proposal], others: list[nn.Parameter], directions: list[Any],
                       undo: Undo) -> None:
        """Raise NonFiniteError before anything has been changed."""
        found = [proposal.size() for proposal in proposals]
        found += [torch.linalg.vector_norm(change) for change, _ in directions if change.numel()]
        if not found or all(isfinite(size) for size in _numbers(found)):
            return
        undo.restore()
        self._banks, self._together = [], None
        self._stages.forget()
        names = [proposal.bank.names for proposal in proposals if not proposal.size().isfinite()]
        names += [self._stages.names[id(parameter)]
                  for parameter,
                  (change, _) in zip(others, directions, strict=True) if not change.isfinite().all()]
        raise NonFiniteError(f"the step of {', '.join(names)} is not finite, though its gradients are: "
                             "nothing has been changed; look at the inputs of this stage, and at its weights")

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
                if weight.grad is None:
                    stage.captured.forget()
                stage.refresh(self.state[weight], bias is not None)
            refresh, work = refresh + stage.refresh_work, work + stage.propagation_work
        if any(stage.captured.armed for stage, _, _ in trained):
            for bank in self._banks:
                bank.renew()
        if self._due:
            every = largest_over_processes(period(refresh, work, self.budget), self._device)
            for group in self.param_groups:
                group["refresh_every"] = every

    def _glances(self, trained: list[Trained]) -> dict[AffineStage, MeanVariance | None]:
        """What was seen of the inputs of the last batch, of the stages that glanced at it."""
        glancing = [stage for stage, weight,
                    _ in trained if stage.captured.glancing and has_moments(self.state[weight])]
        if not glancing:
            return {}
        for stage in glancing:
            if stage.captured.weight.grad is None:
                stage.captured.forget()
        found = variances_over_processes([stage.captured.glance.take() for stage in glancing],
                                       [self.state[stage.captured.weight]["mean"] for stage in glancing])
        return dict(zip(glancing, found, strict=True))

    def moved(self) -> dict[str, float]:
        """The share of entries that the last step moved, for each parameter in a discrete set."""
        return {stage.name: float(self.state[stage.weight]["moved"])
                for stage in self._constraints.discrete.values()
                if "moved" in self.state.get(stage.weight, {})}

    def _apply(self, moves: list[Move], factor: float) -> None:
        for parameter, _ in moves:
            if self._is_foreign(parameter):
                averages.restart(self.state[parameter])
        _add(moves, factor)
        self._constraints.project()

    def _search(self, moves: list[Move], closure: Callable[[], Any], loss: Any) -> None:
        assert self.acceptance is not None
        if loss is None:
            raise ProblemError("acceptance needs the loss: the closure returned None")
        group = self.param_groups[0]
        self._capture.off()  # the inputs of a trial are not those of a step
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

    def _arm(self, only: Iterable[Tensor] | None = None) -> None:
        """Look at the next batch if it is time. only: the stages of these; what others have seen stays."""
        group = self.param_groups[0]
        self._due = is_due(group["steps"] + 1, group["refresh_every"])
        self._stages.arm(self._groups(), self.state, self._due, is_glance_due(group["steps"] + 1),
                         None if only is None else set(map(id, only)))

    def _check_gradients(self) -> dict[int, float]:
        """The largest entry of each gradient, by the id of the parameter."""
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None
                      and p.requires_grad]
        sizes = largest_entries([parameter.grad for parameter in parameters if parameter.grad is not None])
        if not all(map(isfinite, sizes)):
            self._stages.forget()
            bad = next(parameter for parameter,
                       size in zip(parameters, sizes, strict=True) if not isfinite(size))
            name = self._stages.names[id(bad)]
            raise NonFiniteError(f"the gradient of {name} holds values that are NaN or infinite: nothing has "
                                 "been changed; skip this batch or look at its loss")
        return {id(parameter): size for parameter, size in zip(parameters, sizes, strict=True)}


def _mark(parameter: Tensor) -> tuple[int, int]:
    """Changes with every write to a parameter, and with its storage."""
    return parameter._version, parameter.data_ptr()


def _numbers(sizes: list[Tensor]) -> list[float]:
    return torch.stack([size.to(sizes[0].device, torch.float64) for size in sizes]).tolist()


def _with_decay(moves: list[Move], groups: list[dict[str, Any]]) -> list[Move]:
    """Decoupled weight decay of the matrices that have a gradient: one change a parameter."""
    rates = {id(parameter): group["lr"] * group["weight_decay"] for group in groups if group["weight_decay"]
             for parameter in group["params"] if parameter.ndim > 1}
    if not rates:
        return moves
    return [(parameter,
             change.sub(parameter, alpha=rates[id(parameter)]) if id(parameter) in rates else change)
            for parameter, change in moves]


def _predicted(moves: list[Move]) -> float:
    """The decrease of the loss that the whole moves promise to first order."""
    return -sum(float((parameter.grad.to(change.dtype) * change).sum()) for parameter, change in moves
                if parameter.grad is not None)


def _add(moves: list[Move], factor: float) -> None:
    if moves:
        torch._foreach_add_([parameter for parameter, _ in moves],
                            [change.to(parameter.dtype) for parameter, change in moves], alpha=factor)
