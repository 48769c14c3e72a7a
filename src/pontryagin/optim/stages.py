"""Which parameters of a model are maximized as affine stages, as far as is known so far, and which are
AdamW's."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import Tensor, distributed, nn

from pontryagin.distributed.reductions import verdict_over_processes
from pontryagin.errors import ProblemError
from pontryagin.optim.constrained import Constraints
from pontryagin.optim.group import Groups, TrainedStage
from pontryagin.optim.settings import Metric, check_model
from pontryagin.optim.share import Share
from pontryagin.optim.stage import AffineStage
from pontryagin.optim.state import AdamWState, AverageState, Layout, StageState, States
from pontryagin.optim.warning import described, warn
from pontryagin.problem.admissible.by_name import ModelSets
from pontryagin.trajectory.capture import Capture
from pontryagin.trajectory.captured_stage import CapturedStage

Trained = tuple[AffineStage, nn.Parameter, nn.Parameter | None]
"""A stage that is maximized as such, with its trained weight and bias."""


class ModelStages:
    """The stages of a model, and what the looks at it have told of them.

    affine: those that are known; open: by the id of the weight, the alternatives of those of which a look has
    to tell what they are; by_adamw: ids of weights of stages whose inputs have not been seen, which AdamW
    moves so long.
    """

    def __init__(self, model: nn.Module, metric: Metric, admissible: ModelSets | None, strict: bool,
                 share: Share) -> None:
        self._model, self._metric, self._strict = model, metric, strict
        self.capture = Capture(model, metric.moment_rows)
        self.constraints = Constraints(model, admissible, list(self.capture.all_stages()))
        self.affine = self._made(self.capture.stages)
        self.open = {key: found for key, stages in self.capture.open.items() if (found := self._made(stages))}
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.share = share
        share.assign([*self.affine, *chain(*self.open.values())])
        self.by_adamw: set[int] = set()
        self._kinds: dict[int, int] = {}
        self._closed: dict[int, list[AffineStage]] = {}
        self._places = self._found_places()
        self._is_idle = False
        self._just_loaded = self._told_alone = False
        self._wanted: set[int] = set()
        self._told: set[int] = set()

    def _made(self, stages: Iterable[CapturedStage]) -> list[AffineStage]:
        free = [stage for stage in stages if id(stage.weight) not in self.constraints.discrete]
        return [AffineStage(stage, self._metric.metric_rank, self._metric.moment_rows) for stage in free]

    def want(self, parameters: Iterable[Tensor]) -> None:
        """Look at the stages of these in the next pass."""
        self._wanted |= {id(parameter) for parameter in parameters}

    def trained(self, members: Iterable[int]) -> Iterator[Trained]:
        """The stages that are maximized as such, with their trained weight and bias, in whatever groups these
        are."""
        members = set(members)
        for stage in self.affine:
            weight, bias = stage.parameters(members)
            if weight is not None:
                yield stage, weight, bias

    def movable(self, trained: list[Trained], largest: Mapping[int, float], groups: Groups,
                states: States) -> tuple[list[TrainedStage], set[int]]:
        """The stages that can move now, and the parameters that nothing else may move."""
        numbers = {id(parameter): n for n, group in enumerate(groups) for parameter in group["params"]}
        found, done, missed = [], set(), []
        for stage, weight, bias in trained:
            if id(weight) not in largest:
                continue
            state = StageState(states[weight])
            if id(weight) in self._kinds and "kind" not in state:
                state.kind = torch.tensor(float(self._kinds[id(weight)]))
            if state.has_moments:
                places = numbers[id(weight)], numbers[id(weight if bias is None else bias)]
                found.append(TrainedStage(stage, weight, bias, state, places))
                self.by_adamw.discard(id(weight))
                for known in (state.entries, states.get(bias, {}) if bias is not None else {}):
                    AdamWState(known).drop()
            elif largest[id(weight)] == 0 and (bias is None or not largest.get(id(bias))):
                self.share.initialize(stage, state, bias is not None)
            else:
                missed.append(stage)
                continue
            if bias is not None and bias not in states:  # checkpoints expect an entry for every parameter
                AverageState(states[bias]).with_weight = torch.tensor(True)
            done |= {id(weight), id(bias)}
        self._miss(missed)
        return found, done

    def _miss(self, stages: list[AffineStage]) -> None:
        """Stages with a gradient of which no inputs are known, such as those of F.linear(x, module.weight):
        AdamW moves them, and they are looked for again; soon, if no look was due."""
        names = []
        for stage in stages:
            weight = stage.weight
            if not (stage.captured.armed and self.capture.is_on and self._any_call):
                self._wanted.add(id(weight))
                continue
            self.by_adamw.add(id(weight))
            if id(weight) not in self._told:
                self._told.add(id(weight))
                names.append(stage.name)
        if names:
            why = ("were compiled with a function or in place (EMSA sees into torch.compile(model), not into "
                   "model.compile())"
                   if _is_compiled(self._model) else
                   "are not called in the forward pass, or by names at the end of a checkpointed part, or "
                   "see nothing finite")
            warn(described(self._model, names,
                           f"EMSA has seen no inputs of {', '.join(names[:12])}: their modules {why}"))

    def settle(self, largest: Mapping[int, float], states: States, device: torch.device) -> None:
        """What the last look tells of the stages that were open: which of their alternatives they are, or
        none; and whether those that have to be verified still are what they were taken for."""
        closed = []
        for key, stages in list(self.open.items()):
            if key not in largest or not stages[0].captured.armed:
                continue
            found = verdict_over_processes([_verdict(stage.captured) for stage in stages], device)
            if 1 in found:
                self._adopt(key, found.index(1))
            elif 2 in found:
                self._closed[key] = self.open.pop(key)
                _stop_looking(stages)
                closed.append(stages[0])
        for stage in [each for each in self.affine if not each.captured.certain and each.captured.armed]:
            if id(stage.weight) in largest and 2 in verdict_over_processes([_verdict(stage.captured)],
                                                                           device):
                self._close(stage, states)
                closed.append(stage)
        if closed:
            names = [stage.name for stage in closed]
            if self._strict:
                raise ProblemError(f"strict: these parameters belong to no affine stage: {', '.join(names)}; "
                                   "their modules compute something else than W x + b: freeze them or drop "
                                   "strict=True")
            warn(described(self._model, names,
                           "their modules compute something else than W x + b of their inputs"))

    def _close(self, stage: AffineStage, states: States) -> None:
        """Leave a stage that was known to AdamW."""
        key = id(stage.weight)
        self.affine.remove(stage)
        self._places = self._found_places()
        self._closed[key] = [stage]
        _stop_looking([stage])
        self._kinds.pop(key, None)
        StageState(states.get(stage.weight, {})).drop()

    def keep_closed_out(self, states: States) -> None:
        """A state that was saved before a stage was found to be none has entries of it still."""
        for stages in self._closed.values():
            StageState(states.get(stages[0].weight, {})).drop()

    def _adopt(self, key: int, kind: int) -> None:
        alternatives = self.open.pop(key)
        stage = alternatives.pop(kind)
        _stop_looking(alternatives)
        self._kinds[key] = kind
        order = {id(parameter): n for n, parameter in enumerate(self._model.parameters())}
        self.affine = sorted([*self.affine, stage], key=lambda each: order[id(each.weight)])
        self._places = self._found_places()

    def forget(self) -> None:
        """Drop what has been seen of a batch that is not used."""
        for stage in self.capture.all_stages():
            stage.forget()
        self.constraints.forget()

    @property
    def are_own(self) -> bool:
        """Whether the model's modules, and their parameters, still are those of the stages."""
        return all(map(is_, map(dict.get, *self._places[:2]), self._places[2]))

    def _found_places(self) -> tuple[list[dict[str, Any]], list[str], list[Any]]:
        """Where every part of the model stands in another, and every weight of a stage in its module: in
        what, by which name, and what."""
        found = _places(self._model) + [
            (found, stage.map.weight, stage.weight) for stage in self.affine
            if isinstance(found := vars(stage.captured.module).get("_parameters"), dict)]
        return [one for one, _, _ in found], [one for _, one, _ in found], [one for _, _, one in found]

    def check_own(self, groups: Groups, states: States) -> None:
        """Raise ProblemError where parameters have been replaced by others, which no group holds; stages
        whose weight is now computed from another parameter are left to AdamW."""
        check_model(self._model)
        present = {id(parameter): name for name, parameter in self._model.named_parameters()}
        members = _ids(groups)
        gone = [name for key, name in self.names.items() if key in members and key not in present]
        new = [name for key, name in present.items() if key not in self.names]
        if gone and new:
            self.forget()
            raise ProblemError(f"EMSA: {', '.join(gone[:6])} and others of the optimizer's parameters are "
                               f"not the model's any more, which has {', '.join(new[:6])} since: make a new "
                               "EMSA(model)")
        modules = {id(module) for module in self._model.modules()}
        turned = [stage for stage in chain(self.affine, *self.open.values())
                  if not stage.captured.is_own or id(stage.captured.module) not in modules]
        if turned:
            for stage in turned:
                if stage in self.affine:
                    self._close(stage, states)
                else:
                    _stop_looking(self.open.pop(id(stage.weight), []))
            self.names = {id(parameter): name for name, parameter in self._model.named_parameters()}
            warn(described(self._model,
                           [name for stage in turned if (name := self.names.get(id(stage.weight)))],
                           "since the optimizer was made their modules have been replaced, or compute their "
                           "weights from them"))
        self._places = self._found_places()

    def find_new(self, group: dict[str, Any]) -> None:
        """Parameters that the model has got since. Raise ProblemError for those that are not the model's."""
        if any(id(parameter) not in self.names for parameter in group["params"]):
            self.names = {id(parameter): name for name, parameter in self._model.named_parameters()}
            known = {id(stage.weight) for stage in self.capture.all_stages()}
            fresh = Capture(self._model, self._metric.moment_rows)
            self.capture.extend(fresh)
            self.affine += self._made(stage for stage in fresh.stages if id(stage.weight) not in known)
            self.open |= {key: self._made(stages) for key, stages in fresh.open.items() if key not in known}
            self._places = self._found_places()
            self.share.assign([*self.affine, *chain(*self.open.values())])
        for parameter in group["params"]:
            if id(parameter) not in self.names:
                raise ProblemError(f"params holds a parameter of shape {tuple(parameter.shape)} that is not "
                                   "one of the model's")

    def by_stages(self, groups: Groups) -> list[AffineStage]:
        """The stages that are trained as such, and not by AdamW so long."""
        return [stage for stage, weight, _ in self.trained(_ids(groups)) if id(weight) not in self.by_adamw]

    def outside(self, groups: Groups, only: Groups | None = None, open_too: bool = False) -> list[str]:
        """Names of the trained parameters that belong to no stage. only: of these groups. open_too: of those
        not settled too."""
        inside = {id(parameter) for _, weight, bias in self.trained(_ids(groups))
                  if not (open_too and id(weight) in self.by_adamw) for parameter in (weight, bias)}
        if not open_too:
            inside |= {id(parameter) for stages in self.open.values()
                       for parameter in (stages[0].weight, stages[0].captured.bias)}
        inside |= self.constraints.discrete.keys() | self.constraints.biases
        return [self.names[id(parameter)] for group in only or groups for parameter in group["params"]
                if parameter.requires_grad and parameter.numel() and id(parameter) not in inside]

    def report(self, groups: Groups, strict: bool, only: Groups | None = None) -> None:
        """Name what is left to AdamW; strict: refuse it."""
        names = self.outside(groups, only)
        if names and strict:
            raise ProblemError(f"strict: these parameters belong to no affine stage: {', '.join(names)}; "
                               "freeze them or drop strict=True")
        if names:
            warn(described(self._model, names, "they belong to no affine stage"))

    def processes(self, given: Any) -> Any:
        """The process group that the user gave, or that of the DistributedDataParallel around the model; None
        for one process, or processes of their own."""
        parallel: Any = self.capture.parallel
        if parallel is not None and parallel._join_config.enable:
            raise ProblemError("EMSA takes moments over all processes in every step, which join() does not "
                               "know of: give every process as many batches")
        if self.share.group is not None:
            return self.share.group
        if given is not None or parallel is not None:
            return given if given is not None else parallel.process_group
        started = distributed.is_available() and distributed.is_initialized()
        if started and distributed.get_world_size() > 1 and not self._told_alone:
            self._told_alone = True
            warn("EMSA: there are several processes, but no DistributedDataParallel around the model: each "
                 "takes the moments of its own batches; if gradients are averaged by other means, name their "
                 "group: EMSA(model, process_group=...)")
        return None

    def _stage_of(self, parameter: nn.Parameter, saved: Mapping[str, Any]) -> AffineStage | None:
        """The stage of a weight; of an open one that which a saved state says it was."""
        alternatives, kind = self.open.get(id(parameter), []), saved.get("kind")
        if isinstance(kind, Tensor) and kind.numel() == 1 and 0 <= int(kind) < len(alternatives):
            return alternatives[int(kind)]
        return next((stage for stage in chain(self.affine, *self.open.values(), *self._closed.values())
                     if stage.weight is parameter), None)

    def layout_of(self, parameter: nn.Parameter, saved: Mapping[str, Any]) -> Layout:
        """Shapes and dtypes of all entries that the state of a parameter may have."""
        found = AverageState.layout(parameter) | AdamWState.layout(parameter)
        if id(parameter) in self.constraints.discrete:
            found |= self.constraints.discrete[id(parameter)].layout()
        stage = self._stage_of(parameter, saved)
        return found if stage is None else found | stage.layout()

    def needed_of(self, parameter: nn.Parameter, saved: Mapping[str, Any]) -> set[str]:
        """Entries that a state with these ones must have too."""
        names, adamw = set(saved), set(AdamWState.names())
        found = adamw if names & adamw else set()
        if id(parameter) in self.constraints.discrete:
            own = self.constraints.discrete[id(parameter)].layout().keys()
            return found | (set(own) if names & own else set())
        stage = self._stage_of(parameter, saved)
        if stage is None or not names & (set(StageState.names()) - {"kind"}):
            return found
        return found | StageState.needed(stage.is_exact, stage.map.one_hot, stage.is_whitened,
                                          stage.has_directions)

    def resume(self, states: States) -> None:
        """Stages that were open, and have moments in the state: what they are has been told."""
        for key, stages in list(self.open.items()):
            state = StageState(states.get(stages[0].weight, {}))
            fits = state.has_moments and ("mean" not in state or any(
                state.mean.shape == (stage.groups, stage.inputs) and state.velocity.shape[1] == stage.outputs
                for stage in stages))
            if "kind" in state and fits:
                self._adopt(key, int(state.kind))

    @property
    def _any_call(self) -> bool:
        """Whether the model has been called since the look began."""
        return any(stage.called for stage in self.capture.all_stages()) or not self._just_loaded

    def loaded(self) -> None:
        """A pass that came before is not known any more."""
        self._just_loaded = True

    def arm(self, groups: Groups, states: States, due: bool, probing: bool,
            only: set[int] | None = None) -> None:
        """Look at the next pass: at all stages if a refresh is due, at those never seen if they are wanted or
        a probe is due."""
        self._just_loaded = False
        if self._is_idle and only is None and not (due or probing or self._wanted
                                                   or self.constraints.discrete):
            return
        members, looks = _ids(groups), []
        for stage in chain(self.affine, *self.open.values()):
            weight = stage.weight
            if only is not None and id(weight) not in only:
                continue
            trained = id(weight) in members and weight.requires_grad
            known = StageState(states.get(weight, {})).has_moments
            unseen = not known and (probing or id(weight) in self._wanted)
            looks.append((stage, trained and (due or unseen), trained and probing and known))
        bases = self.share.bases([stage for stage, armed, _ in looks if armed], states)
        for stage, armed, is_probing in looks:
            stage.arm(armed, is_probing, bases.get(id(stage.weight), states.get(stage.weight, {})))
        self._wanted.clear()
        self.constraints.arm(lambda weight: states.get(weight, {}))
        self._is_idle = not any(stage.is_looking for stage in self.capture.all_stages())
        if self._is_idle:
            self.capture.off()
        else:
            self.capture.on()


def _places(model: nn.Module) -> list[tuple[dict[str, Any], str, Any]]:
    """Where every part of a model stands in another."""
    return [(part._modules, name, child) for part in model.modules() if isinstance(part._modules, dict)
            for name, child in part._modules.items()]


def _stop_looking(stages: Iterable[AffineStage]) -> None:
    """Those that are none are not looked at any more: hooks are on as long as any stage looks."""
    for stage in stages:
        stage.captured.look(armed=False, probing=False)


def _verdict(stage: CapturedStage) -> int:
    """Of a look at a stage: 0 for none, 1 where it is what it was taken for, 2 where it is not."""
    if stage.certain:
        return int(stage.seen)
    found = stage.verdict()
    return 0 if found is None else 1 if found else 2


def _ids(groups: Groups) -> set[int]:
    """Of all parameters."""
    return {id(parameter) for group in groups for parameter in group["params"]}


def _is_compiled(model: nn.Module) -> bool:
    return any(getattr(module, "_compiled_call_impl", None) is not None for module in model.modules())
