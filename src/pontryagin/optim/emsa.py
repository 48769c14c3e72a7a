"""EMSA: the maximization of the augmented Hamiltonian as a torch optimizer for any module."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import inf, isfinite
from numbers import Real
from typing import Any
from weakref import WeakMethod

import torch
from torch import Tensor, nn

from pontryagin.affine.precision import full_precision
from pontryagin.distributed.mesh import spread_of
from pontryagin.distributed.reductions import largest_over_processes, mean_of_known, together
from pontryagin.errors import NonFiniteError, ProblemError
from pontryagin.optim.addresses import Addresses
from pontryagin.optim.averages import AVERAGING, Averages, Known, known_of
from pontryagin.optim.moves import Moves
from pontryagin.optim.numbers import quiet
from pontryagin.optim.owned import Owned, share_of
from pontryagin.optim.promise import Asked, Bound, Outlook, Running
from pontryagin.optim.saved_state import check_saved, take_over
from pontryagin.optim.schedule import is_due, is_probe_due
from pontryagin.optim.search import AcceptanceRule, search
from pontryagin.optim.settings import Constraint, Metric, check_group, check_model, check_rates, constraint_of
from pontryagin.optim.stages import ModelStages
from pontryagin.optim.state import AverageState
from pontryagin.optim.step import StepMaker
from pontryagin.optim.table import StageTable, rows_of
from pontryagin.problem.admissible.by_name import ModelSets
from pontryagin.trajectory.capture import Capture


class EMSA(torch.optim.Optimizer):
    """Extended method of successive approximations with the closed-form argmax of affine stages.

    Every layer that computes z = W x + b is a stage, maximized by itself: with G, g minus the gradients of
    the loss, s and A_c the running mean and centred second moment of x,

        dW = (G - g s^T) (A_c + delta I)^-exponent,   db = g - dW s,   delta = damping * mean(diag A_c)
        W_i <- W_i + lr * dW_i / rho_i,   rho_i = running root mean square of the change of output z_i by
        dW_i, db_i

    with Nesterov momentum after the solve. Before it (G - g s^T, g) is multiplied by the inverse root of the
    second moment of what that does to up to 128 outputs together (whitening.py). A layer of whole vectors
    that sees twice as many rows per batch as it has inputs or outputs takes the step bounded in the operator
    norm instead (affine/polar.py); the exponent is 1/2, and 1 where they are many (certainty.py). The scale
    of the loss means nothing. Steps become shorter where gradients fade, and reach no further than the
    weights themselves allow (fading.py); where the loss is known they promise no more than a share of it, and
    may be longer (promise.py).
    `reference.py` is the whole step of Linear layers in one plain file. Parameters outside any stage are
    trained by AdamW, and named in one warning; so are those of modules that turn out to compute something
    else than an affine map of their inputs. Moments are of exactly the rows whose gradient is in .grad at the
    step, and are renewed as often as metric.refresh_budget allows; between, probes of mean and variance let
    them follow states that grow. Nothing is put on the model: while a look is due, the hooks that torch calls
    for every module see the inputs of its layers; detach() takes them off. A copy or pickle has a model of
    its own.

    `eval()` puts the averages of the controls into the model, for evaluation and saving, and `train()` the
    controls back, bit by bit, before the next step; a loop that calls neither works with the controls alone.

    model: the module. params: its parameters or param groups, if not all of them. lr: the change of every
    output per step, root mean square, in units of that output, so that it carries over between layers and
    networks. momentum: of the steps. weight_decay: decoupled. adamw_lr: AdamW's rate in units of lr.
    averaging: eta of the averages, over about the last 1 / (eta + 1) of all steps; None for none. metric,
    constraint: see Metric, Constraint, whose numbers damping, exponent, rho_decay, flip_rate and density can
    be set per group, as lr to averaging can.
    acceptance: how far a step goes: a Bound on what it may promise, a rule that accepts or rejects it by a
    closure, or None for lr as it is. With a rule, and with a constraint, there are no averages, for what is
    promised is the controls'. strict: refuse parameters outside any stage. process_group: of processes whose
    gradients are averaged by other means than DistributedDataParallel, which names its own; or StageOwners(),
    by whom each stage is stepped. Under fully_shard and tensor parallel stages have owners too, and every
    process has to call each method.

    Raises ProblemError for wrong settings, and for parameters that are sharded otherwise, without values, or
    have been replaced by others; NonFiniteError when a gradient, the closure's loss or a step is not finite:
    nothing has been changed.
    """

    def __init__(self, model: nn.Module, params: Iterable[Any] | None = None, *, lr: float | Tensor = 0.03,
                 momentum: float = 0.8, weight_decay: float = 0.0, adamw_lr: float = 0.3,
                 averaging: float | None = AVERAGING, metric: Metric | None = None,
                 constraint: Constraint | ModelSets | None = None,
                 acceptance: AcceptanceRule | Bound | None = Bound(), strict: bool = False,  # noqa: B008
                 process_group: Any = None) -> None:
        check_model(model)
        metric, sets = metric or Metric(), constraint_of(constraint)
        if not isinstance(metric, Metric) or isinstance(acceptance, type) or not isinstance(
                acceptance, AcceptanceRule | Bound | None):
            raise ProblemError("EMSA: expected metric=Metric(...) and acceptance=Bound(...), Acceptance(), "
                               f"another rule or None, found {metric!r} and {acceptance!r}")
        defaults = {"lr": lr, "damping": metric.damping, "exponent": metric.exponent, "momentum": momentum,
                    "rho_decay": metric.rho_decay, "weight_decay": weight_decay, "adamw_lr": adamw_lr,
                    "flip_rate": sets.flip_rate, "density": sets.density, "averaging": averaging, "steps": 0,
                    "averaged": False, "refresh_every": 1, "probe_stretch": 1, "step_scale": 1.0,
                    "promise": ()}
        self.acceptance, self._model, self._metric, self._sets = acceptance, model, metric, sets
        self._strict, self._process_group = strict, process_group
        self._settings = tuple(defaults)  # torch adds to the defaults
        self._begin()
        if self._stages.constraints.discrete and self._rule is not None:
            raise ProblemError("an acceptance rule divides steps, which discrete sets do not allow: leave "
                               "out the one or the other")
        super().__init__(model.parameters() if params is None else params, defaults)
        self._constructed = True
        self._stages.report(self.param_groups, strict)
        self._stages.constraints.start()
        self._arm()

    def _begin(self) -> None:
        """What is made from the model alone."""
        ruled = self._rule is not None or self._sets.admissible is not None
        if ruled and spread_of(self._model.named_parameters()):
            raise ProblemError("EMSA: an acceptance rule and a constraint need whole parameters, and these "
                               "are sharded: leave them out, or use DistributedDataParallel")
        self._share = share_of(self._model, self._process_group)
        self._stages = ModelStages(self._model, self._metric, self._sets.admissible, self._strict,
                                   self._share)
        self._maker = StepMaker(self._stages, self._metric.refresh_budget)
        self._averages, self._constructed = Averages(), False
        self._averaging = not ruled
        renewed = WeakMethod(self._renewed)
        self._stages.capture.ask(lambda: None if (found := renewed()) is None else found())

    def _renewed(self) -> Capture | None:
        """Begin anew where all parameters were replaced before the first step, in the model and in the
        groups, as by Accelerate, which shards the model after the optimizer has been made."""
        if not self._constructed or any(self.state.values()) or self._stages.are_own:
            return None
        present = set(map(id, self._model.parameters()))
        if any(id(parameter) not in present for group in self.param_groups for parameter in group["params"]):
            return None
        self._stages.capture.off()
        self._begin()
        self._constructed = True
        self._stages.constraints.start()
        self._arm()
        return self._stages.capture

    @property
    def _rule(self) -> AcceptanceRule | None:
        return None if isinstance(self.acceptance, Bound) else self.acceptance

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """More parameters of the same model, such as layers that have been unfrozen, or that it got since."""
        super().add_param_group(param_group)
        added = self.param_groups[-1]
        try:
            check_group(added)
            self._stages.find_new(added)
            self._stages.constraints.check(added)
        except ProblemError:
            del self.param_groups[-1]
            raise
        if self._constructed:
            self._stages.report(self.param_groups, False, self.param_groups[-1:])
            self._stages.want(added["params"])
            self._arm(added["params"])

    def step(self, closure: Callable[[], Any] | None = None, *, loss: Any = None) -> Any:
        """One step of every stage. closure: computes the loss and its gradients; it may return None. loss:
        the one that the gradients in .grad are of; by it, or the closure's, or a `.loss` of the model's
        outputs, steps are bounded and may be longer: see Bound."""
        return None if closure is None and self._ordinary_step(loss) else self._any_step(closure, loss)

    def _ordinary_step(self, loss: Any) -> bool:
        """The same where the step is an ordinary one (ordinary.py); where not, False, and nothing has been
        changed. What is refused is another's to refuse."""
        groups, stages, bound, made = self.param_groups, self._stages, self.acceptance, self._maker.ordinary
        if made is None or torch.is_inference_mode_enabled():  # what is kept would be of that mode
            return False
        value = None if loss is None else _number_of(loss)
        is_told = loss is None or (value is not None and isfinite(value))
        if not (is_told and isinstance(bound, Bound) and not groups[0]["averaged"] and self._averaging
                and stages.capture.is_still and stages.are_own and self._process_group is None
                and not torch.is_autocast_enabled("cpu")):
            return False
        largest, steps, averages = 0.0, groups[0]["steps"], self._averages
        for group in groups:
            lr = float(group["lr"])
            if not (0 <= lr < inf and 0 <= float(group["weight_decay"]) < inf
                    and 0 <= float(group["adamw_lr"]) < inf and group["averaging"] is not None):
                return False
            largest = max(largest, lr)
        if (is_due(steps + 1, groups[0]["refresh_every"]) or not made.is_one(groups, self.state)
                or not averages.are_untouched(made.addresses)):
            return False
        outlook = bound.outlook(groups[0]["promise"], value)
        measured = outlook.is_measured(steps)
        promise = made.propose(groups, outlook, measured)
        if promise is None:
            return False
        running, length = outlook.length(promise if measured else None, largest, steps)
        groups[0]["promise"] = tuple(running)
        made.take(groups, length)
        self._remember(made.addresses)
        made.addresses.note_where_they_were()
        averages.written(made.addresses)
        self._arm()
        return True

    def _remember(self, addresses: Addresses | None) -> None:
        """Controls enter their averages after one more step, by these addresses or otherwise."""
        for group in self.param_groups:
            group["steps"] += 1
            if self._averaging and group["averaging"] is not None and not (
                    addresses is not None and self._averages.remember_at(addresses, group, self.state)):
                self._averages.remember(self._kept(group), group["steps"], group["averaging"])

    @torch.inference_mode(False)
    @torch.no_grad()
    def _any_step(self, closure: Callable[[], Any] | None, loss: Any) -> Any:
        groups, rule = self.param_groups, self._rule
        self._renewed()
        self._share.rest(self._model)
        if closure is None and rule is not None:
            raise ProblemError("acceptance needs a closure that returns the loss: optimizer.step(closure)")
        try:
            value = None if loss is None else _one_number(loss)
            result = _loss_before(self.is_shown, closure)
        except (ProblemError, NonFiniteError):
            self._stages.forget()
            self._share.begin(failed=True)
            raise
        self._share.begin(failed=False)
        for group in groups:
            check_rates(group)
        largest = self._maker.gradients(groups, self.state)
        looked = self._stages.capture.is_on
        if looked or not self._stages.are_own:
            self._stages.check_own(groups, self.state)
        device = next((p.device for group in groups for p in group["params"]), torch.device("cpu"))
        with together(self._stages.processes(self._process_group)), full_precision(device), quiet():
            if looked:
                self._stages.settle(largest, self.state, device)
            outlook = self._outlook(_number_of(result) if value is None else value, looked, device)
            steps = groups[0]["steps"]
            measured = any(largest.values()) and outlook.is_measured(steps)
            moves = self._maker.moves(groups, self.state, largest, looked, Asked(
                outlook.longest if rule is None else None, measured, self._last(outlook), outlook.unit,
                is_due(steps + 1, groups[0]["refresh_every"]), looked))
        if rule is not None and closure is not None:
            self._stages.capture.off()  # the inputs of a trial are not those of a step
            moves = [one._replace(place=None) for one in moves]
            search(rule, moves, lambda length: self._apply(moves, length), closure, result, groups)
        else:
            running, length = outlook.length(self._maker.promise if measured else None,
                                             max(float(group["lr"]) for group in groups), steps)
            groups[0]["promise"] = tuple(running)
            self._apply(moves, length)
        addresses = self._addresses
        self._remember(addresses)
        self._maker.done()
        self._averages.written(addresses)
        self._arm()
        return result

    def _outlook(self, value: float | None, looked: bool, device: torch.device) -> Outlook:
        """value: the loss, should it have been passed. looked: whether a look has been made."""
        running = self.param_groups[0]["promise"]
        if not isinstance(self.acceptance, Bound):
            return Outlook(Running(*running))
        seen, place = self._stages.capture.take_loss(), None
        if looked:
            last = self._stages.capture.take_last()
            place = largest_over_processes(next(
                (n for n, parameter in enumerate(self._parameters()) if parameter is last), -1), device)
        return self.acceptance.outlook(running, mean_of_known(seen if value is None else value, device),
                                       place)

    def _last(self, outlook: Outlook) -> int | None:
        """The id of the weight of the last stage."""
        place = int(outlook.running.place)
        return None if place < 0 else next(map(id, islice(self._parameters(), place, None)), None)

    def _parameters(self) -> Iterator[nn.Parameter]:
        return (parameter for group in self.param_groups for parameter in group["params"])

    @property
    def _addresses(self) -> Addresses | None:
        """Of this step, where all controls are averaged."""
        averaged = self._averaging and all(group["averaging"] is not None for group in self.param_groups)
        return self._maker.addresses if averaged else None

    def _kept(self, group: dict[str, Any]) -> Known:
        """The parameters whose averages are kept in this process."""
        return [(parameter, state) for parameter, state in known_of(group, self.state)
                if self._share.keeps_average(parameter)]

    def _apply(self, moves: list[Moves], length: float) -> None:
        are_untouched = self._averages.are_untouched(self._addresses)
        for one in moves:
            if not are_untouched:
                self._averages.begin_anew([(parameter, AverageState(self.state[parameter]))
                                           for parameter in one.parameters])
            one.apply(length)
        self._stages.constraints.project()

    @property
    def is_shown(self) -> bool:
        """Whether the averages are in the model."""
        return bool(self.param_groups[0]["averaged"])

    @torch.inference_mode(False)
    @torch.no_grad()
    def eval(self) -> None:
        """Put the averages of the controls into the model, to be evaluated or saved. Again: nothing."""
        self._share.rest(self._model)
        for group in [] if self.is_shown else self.param_groups:
            group["averaged"] = True
            if self._averaging and group["averaging"] is not None:
                self._averages.begin_anew(self._kept(group))
                self._share.bring_averages(group["params"], self.state)
                self._averages.show(known_of(group, self.state))

    @torch.inference_mode(False)
    @torch.no_grad()
    def train(self) -> None:
        """Put the controls back, as they were, for the next batch. Again: nothing. Weights that have been
        loaded into the model in the meantime stay, and are the controls from now on."""
        self._share.rest(self._model)
        for group in self.param_groups if self.is_shown else []:
            group["averaged"] = False
            self._averages.hide(known_of(group, self.state))
            self._share.drop_averages(group["params"], self.state)

    def detach(self) -> None:
        """Take everything off: no pass of the model is looked at before the next step(). Again: nothing."""
        self._stages.capture.off()

    def stages(self) -> StageTable:
        """What each stage is, how it is maximized and what it costs: print it."""
        rows = rows_of(self._stages.by_stages(self.param_groups),
                       self._stages.outside(self.param_groups, open_too=True),
                       self.param_groups[0]["refresh_every"])
        bound = self.acceptance
        note = bound.note(self.param_groups[0]["promise"]) if isinstance(bound, Bound) else ""
        return StageTable(self._stages.constraints.rows() + rows, note)

    def moved(self) -> dict[str, float]:
        """The share of entries that the last step moved, for each parameter in a discrete set."""
        return self._stages.constraints.moved(self.state)

    def state_dict(self) -> dict[str, Any]:
        """As torch's. Where stages have owners every process has to call it: what lies in parts are DTensors,
        for torch.distributed.checkpoint."""
        found = super().state_dict()
        state = {number: {name: value.contiguous() if isinstance(value, Tensor) else value
                          for name, value in entries.items()} for number, entries in found["state"].items()}
        return found | {"state": self._share.saved(state, list(self._parameters()))}

    @torch.inference_mode(False)
    @torch.no_grad()
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

        # after other hooks, which may replace it
        def check(_: torch.optim.Optimizer, found: dict[str, Any]) -> None:
            check_saved(found, self.param_groups, self._settings, self._stages.layout_of,
                        self._stages.needed_of, lambda parameter: self._stages.names[id(parameter)])
            checked.append(found)

        last = self.register_load_state_dict_pre_hook(check)
        try:
            super().load_state_dict(state_dict)
        finally:
            last.remove()
        take_over(checked[0], self.param_groups, self.state, self._share.taken)
        self._after_loading()

    def __getstate__(self) -> dict[str, Any]:
        """Model and state: a copy has a model of its own, that of what it is copied with."""
        if isinstance(self._share, Owned):
            raise ProblemError("EMSA: stages have owners, so this process has a part of the state alone: "
                               "copy by state_dict() and load_state_dict(), which every process calls")
        own = ("acceptance", "_model", "_metric", "_sets", "_strict", "_settings")
        return super().__getstate__() | {name: getattr(self, name) for name in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("probe_stretch", 1)  # of a version before
        if "_model" in state:  # else torch's load_state_dict: only state and groups
            self._process_group = None  # processes are not copied
            self._begin()
            self._constructed = True
            self._stages.resume(self.state)
            self._after_loading()

    def _after_loading(self) -> None:
        self._maker.forget()
        self._averages = Averages()
        self._stages.keep_closed_out(self.state)
        self._stages.resume(self.state)
        self._arm()
        self._stages.loaded()

    def _arm(self, only: Iterable[nn.Parameter] | None = None) -> None:
        """Look at the next batch if it is time. only: the stages of these; what others have seen stays."""
        first = self.param_groups[0]
        step, every, stretch = first["steps"] + 1, first["refresh_every"], first["probe_stretch"]
        self._stages.arm(self.param_groups, self.state, is_due(step, every), is_probe_due(step, stretch),
                         None if only is None else set(map(id, only)))


def _loss_before(are_shown: bool, closure: Callable[[], Any] | None) -> Any:
    """The loss of the closure, if there is one. ProblemError or NonFiniteError where there can be no step."""
    if are_shown:
        raise ProblemError("the model holds the averages, as eval() put them there: call optimizer.train() "
                           "before the next batch")
    if closure is None:
        return None
    with torch.enable_grad():
        loss = closure()
    if loss is not None and not torch.as_tensor(loss).isfinite().all():
        raise NonFiniteError(f"the loss of the closure is {loss}: nothing has been changed; look at this "
                             "batch")
    return loss


def _one_number(loss: Any) -> float:
    """The loss that is passed. ProblemError for what is no number, NonFiniteError for NaN and infinity."""
    value = _number_of(loss)
    if value is None:
        found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise ProblemError(f"EMSA step(loss=...): expected the loss of the batch, one number, found {found}")
    if not isfinite(value):
        raise NonFiniteError(f"the loss is {value}: nothing has been changed; look at this batch")
    return value


def _number_of(loss: Any) -> float | None:
    """None for what is no single real number."""
    if isinstance(loss, Tensor):
        return float(loss.item()) if loss.numel() == 1 and not loss.is_complex() else None
    return float(loss) if isinstance(loss, Real) else None
