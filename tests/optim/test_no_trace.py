"""An optimizer that goes leaves nothing on its model; while it is there, the model is copied, saved and
compiled as any other."""

import copy
import gc
import io
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from optim_builders import emsa, said
from optim_kinds import NETS, STAGES, Kind, assert_near, assert_same, controls, few, loss_of
from torch import Tensor, nn

from pontryagin.optim import EMSA
from pontryagin.problem import Binary, ProblemError

MANY = Kind(lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), (16, 4))


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.map(x))


class Whole(nn.Module):
    """The compiler leaves frames of torch's own containers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = Half(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


WHOLE = Kind(Whole, (16, 4))
VARIOUS = {**NETS, "attention": STAGES["attention"]}


def functions() -> list[Any]:
    """What all models share."""
    return [nn.Module.__call__, nn.Module._call_impl, nn.Linear.forward, nn.Conv2d.forward,
            nn.Embedding.forward, nn.LayerNorm.forward, F.linear, F.embedding, F.layer_norm,
            torch.Tensor.backward, torch.autograd.backward]


FUNCTIONS = functions()


def step(model: nn.Module, optimizer: torch.optim.Optimizer, kind: Kind, number: int,
         dtype: torch.dtype = torch.float64) -> float:
    optimizer.zero_grad()
    loss = loss_of(model, kind.inputs(number, dtype), number)
    loss.backward()
    optimizer.step()
    return loss.item()


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, kind: Kind, numbers: range,
          dtype: torch.dtype = torch.float64) -> list[float]:
    return [step(model, optimizer, kind, number, dtype) for number in numbers]


def traces(model: nn.Module) -> dict[str, Any]:
    """All that could have been put on a model, on its parameters, or on torch."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        found[f"{name}: class"], found[f"{name}: attributes"] = type(module), sorted(vars(module))
        for key, value in vars(module).items():
            if "hook" in key and hasattr(value, "__len__"):
                found[f"{name}.{key}"] = len(value)
    for name, parameter in model.named_parameters():
        found[f"{name}: hooks"] = [len(getattr(parameter, key, None) or ()) for key in
                                   ("_backward_hooks", "_post_accumulate_grad_hooks")]
        found[f"{name}: class"], found[f"{name}: attributes"] = type(parameter), sorted(vars(parameter))
    return found | shared()


def shared() -> dict[str, Any]:
    """What belongs to no model."""
    found: dict[str, Any] = {}
    for module in ("torch.nn.modules.module", "torch.optim.optimizer"):
        found |= {key: len(value) for key, value in vars(sys.modules[module]).items()
                  if key.startswith("_global") and hasattr(value, "__len__")}
    found["modes"] = torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()
    assert functions() == FUNCTIONS
    return found


def alive() -> int:
    """Objects of the package."""
    own = {each for name, module in list(sys.modules.items()) if name.startswith("pontryagin")
           for each in vars(module).values() if isinstance(each, type)
           and each.__module__.startswith("pontryagin")}
    gc.collect()
    return sum(type(each) in own for each in gc.get_objects())


@pytest.fixture(autouse=True)
def _compiler_without_a_past() -> None:
    """It compiles a function of torch's eight times in a process, by whatever tests, and then no more."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


@pytest.fixture(autouse=True, scope="module")
def _only_what_these_tests_make() -> Iterator[None]:
    """The collector leaves alone what was there before, which saves it most of its work."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


# --- nothing stays ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("count", [0, 9])
@pytest.mark.parametrize("name", VARIOUS)
def test_a_deleted_optimizer_leaves_nothing(name: str, count: int) -> None:
    kind = VARIOUS[name]
    model = kind.model()
    before, objects = traces(model), alive()
    optimizer = kind.optimizer(model)
    steps(model, optimizer, kind, range(count))
    optimizer.zero_grad()
    del optimizer
    assert alive() == objects
    assert traces(model) == before


@pytest.mark.parametrize("name", ["many rows", "norms"])
def test_a_graph_outlives_its_optimizer(name: str) -> None:
    """The backward pass of a loss of before works, as without."""
    kind = NETS[name]
    gradients = []
    for made in (False, True):
        model = kind.model()
        optimizer = kind.optimizer(model) if made else None
        loss = loss_of(model, kind.inputs(0), 0)
        del optimizer
        gc.collect()
        loss.backward()
        found = [parameter.grad for parameter in model.parameters()]
        gradients.append(torch.cat([gradient.flatten() for gradient in found]))  # type: ignore[union-attr]
        before = alive()
    del loss
    assert_same(*gradients)
    assert alive() <= before


def test_fifty_optimizers_one_after_the_other() -> None:
    model = MANY.model()
    steps(model, EMSA(model), MANY, range(2))
    before, objects = traces(model), alive()
    for number in range(50):
        optimizer = EMSA(model)
        if number % 5 == 0:
            steps(model, optimizer, MANY, range(2))
        del optimizer
    assert alive() == objects
    assert traces(model) == before


def test_fifty_optimizers_of_fifty_models() -> None:
    objects, before = alive(), shared()
    for _ in range(50):
        model = MANY.model()
        steps(model, EMSA(model), MANY, range(1))
        del model
    assert alive() == objects
    assert shared() == before


@pytest.mark.parametrize("register", [nn.modules.module.register_module_forward_hook,
                                      nn.modules.module.register_module_forward_pre_hook,
                                      nn.modules.module.register_module_module_registration_hook])
def test_the_collector_may_take_an_optimizer_at_any_moment(register: Callable[..., Any]) -> None:
    """Of one model, while another is at work: between two hooks of torch's own loop over them."""
    model, plain = MANY.model(), MANY.model()
    optimizer, reference = EMSA(model), EMSA(plain)

    def collect(*_: Any) -> None:
        gc.collect()

    handle = register(collect)  # its turn comes before those of hooks that are registered after it
    gc.disable()
    try:
        for number in range(4):
            for _ in range(2):
                other = EMSA(MANY.model())
                # so that nothing but the collector frees it
                other.itself = other  # type: ignore[attr-defined]
                del other
            step(model, optimizer, MANY, number)
    finally:
        gc.enable()
        handle.remove()
    steps(plain, reference, MANY, range(4))
    assert_same(controls(model), controls(plain))


def test_models_are_not_kept_alive() -> None:
    def kept() -> int:
        gc.collect()
        return sum(type(each) is nn.Linear for each in gc.get_objects())

    before = kept()
    model = MANY.model()
    optimizer = EMSA(model)
    steps(model, optimizer, MANY, range(3))
    del model, optimizer
    assert kept() == before


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_optimizer_that_is_refused_leaves_nothing() -> None:
    model = MANY.model()
    before, objects = traces(model), alive()
    for options in ({"lr": -1.0}, {"admissible": {"nothing": Binary()}},
                    {"params": [nn.Parameter(torch.ones(2))]}, {"metric_rank": 0},
                    {"density": 2.0}):
        with pytest.raises(ProblemError):
            emsa(model, **options)  # type: ignore[arg-type]
    assert alive() == objects
    assert traces(model) == before


def test_a_second_optimizer_is_not_disturbed_by_the_end_of_the_first() -> None:
    ends = []
    for other in (False, True):
        model = MANY.model()
        first = EMSA(model) if other else None
        optimizer = EMSA(model)
        steps(model, optimizer, MANY, range(4))
        if first is not None:
            del first
            gc.collect()
        steps(model, optimizer, MANY, range(4, 12))
        ends.append(controls(model))
    assert_same(*ends)


# --- detach -------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("count", few([0, 1, 9], 0, 9))
@pytest.mark.parametrize("name", ["many rows", "convolutions", "tokens", "binary", "attention"])
def test_detach_takes_everything_off(name: str, count: int) -> None:
    kind = VARIOUS[name]
    model = kind.model()
    before = traces(model)
    optimizer = kind.optimizer(model)
    steps(model, optimizer, kind, range(count))
    optimizer.zero_grad()
    weights = controls(model)
    optimizer.detach()
    optimizer.detach()
    assert traces(model) == before
    assert_same(controls(model), weights)
    optimizer.state_dict()
    optimizer.stages()
    optimizer.eval()
    optimizer.train()
    assert_same(controls(model), weights)


@pytest.mark.parametrize("name", ["rows", "many rows", "convolutions", "norms", "tokens", "binary"])
def test_a_step_after_detach(name: str) -> None:
    """It goes on, or says in one line what to do."""
    kind = NETS[name]
    model = kind.model()
    optimizer = kind.optimizer(model)
    steps(model, optimizer, kind, range(4))
    optimizer.detach()
    before = controls(model)
    try:
        losses = steps(model, optimizer, kind, range(4, 14))
    except ProblemError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert_same(controls(model), before)
        return
    assert all(loss < float("inf") for loss in losses)
    assert controls(model).isfinite().all()
    assert not torch.equal(controls(model), before)
    optimizer.detach()
    del optimizer
    assert traces(model) == traces(kind.model())


def test_detach_in_the_middle_of_an_iteration() -> None:
    """Between the forward and the backward pass, and between that and the step."""
    for place in ("before backward", "after backward"):
        model = MANY.model()
        optimizer = EMSA(model)
        steps(model, optimizer, MANY, range(2))
        optimizer.zero_grad()
        loss = loss_of(model, MANY.inputs(3), 3)
        if place == "before backward":
            optimizer.detach()
        loss.backward()
        optimizer.detach()
        try:
            optimizer.step()
        except ProblemError as error:
            assert "\n" not in str(error)  # noqa: PT017
        assert controls(model).isfinite().all()


# --- copies and files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 8])
@pytest.mark.parametrize("name", ["many rows", "convolutions", "norms", "binary"])
def test_models_are_copied_and_saved_as_any_other(name: str, count: int) -> None:
    kind = NETS[name]
    model = kind.model(torch.float32)
    plain = kind.model(torch.float32)
    optimizer = kind.optimizer(model)
    steps(model, optimizer, kind, range(count), torch.float32)
    optimizer.zero_grad()
    assert list(model.state_dict()) == list(plain.state_dict())
    assert b"pontryagin" not in pickle.dumps(model)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    assert b"pontryagin" not in buffer.getvalue()
    buffer.seek(0)
    x = kind.inputs(50, torch.float32)
    loaded = torch.load(buffer, weights_only=False)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert traces(other) == traces(plain)
        assert_same(other(x), model(x))
        loss_of(other, x, 0).backward()


@pytest.mark.parametrize("count", [0, 3, 9])
def test_a_copy_is_trained_by_an_optimizer_of_its_own(count: int) -> None:
    """Model averaging, populations: both go on, and neither sees the other."""
    model, plain = MANY.model(), MANY.model()
    optimizer, reference = EMSA(model), EMSA(plain)
    steps(model, optimizer, MANY, range(count))
    steps(plain, reference, MANY, range(count))
    other = copy.deepcopy(model)
    its = EMSA(other)
    for number in range(count, count + 8):
        step(other, its, MANY, number + 50)
        step(model, optimizer, MANY, number)
        step(plain, reference, MANY, number)
    assert_same(controls(model), controls(plain))
    assert not torch.equal(controls(other), controls(model))


def through_pickle(pair: Any) -> Any:
    return pickle.loads(pickle.dumps(pair))


def through_a_file(pair: Any) -> Any:
    buffer = io.BytesIO()
    torch.save({"pair": pair}, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)["pair"]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("way", [copy.deepcopy, through_pickle, through_a_file])
@pytest.mark.parametrize("count", few([0, 1, 9], 9))
@pytest.mark.parametrize("name", ["rows", "many rows", "convolutions", "binary"])
def test_model_and_optimizer_in_one_object(name: str, count: int, way: Callable[[Any], Any]) -> None:
    """The copies go on bit by bit as the originals, which notice nothing; the averages too."""
    kind = NETS[name]
    model, plain = kind.model(), kind.model()
    optimizer, reference = kind.optimizer(model), kind.optimizer(plain)
    steps(model, optimizer, kind, range(count))
    steps(plain, reference, kind, range(count))
    other, its = way((model, optimizer))
    last, last_model = way([optimizer, model])
    members = {id(each) for group in its.param_groups for each in group["params"]}
    assert members == {id(each) for each in other.parameters()}
    after = range(count, count + 9)
    steps(other, its, kind, after)
    steps(model, optimizer, kind, after)
    steps(last_model, last, kind, after)
    steps(plain, reference, kind, after)
    for one in (model, other, last_model):
        assert_same(controls(one), controls(plain))
    its.eval()
    reference.eval()
    assert_same(controls(other), controls(plain))


@pytest.mark.parametrize("count", [0, 3, 9])
def test_a_copy_of_the_optimizer_alone(count: int) -> None:
    """As torch's: it has parameters of its own, and nothing to do with the model."""
    model, plain = MANY.model(), MANY.model()
    optimizer, reference = EMSA(model), EMSA(plain)
    steps(model, optimizer, MANY, range(count))
    steps(plain, reference, MANY, range(count))
    other = copy.deepcopy(optimizer)
    its = [parameter for group in other.param_groups for parameter in group["params"]]
    assert not {id(each) for each in its} & {id(each) for each in model.parameters()}
    kept = [each.detach().clone() for each in its]
    steps(model, optimizer, MANY, range(count, count + 5))
    steps(plain, reference, MANY, range(count, count + 5))
    assert_same(controls(model), controls(plain))
    assert all(torch.equal(one, each) for one, each in zip(kept, its, strict=True))
    assert other.state_dict()["param_groups"][0]["lr"] == 0.03


def test_a_copy_while_averages_are_shown() -> None:
    model, plain = MANY.model(), MANY.model()
    optimizer, reference = EMSA(model), EMSA(plain)
    steps(model, optimizer, MANY, range(6))
    steps(plain, reference, MANY, range(6))
    optimizer.eval()
    other, its = copy.deepcopy((model, optimizer))
    its.train()
    assert_same(controls(other), controls(plain))
    steps(other, its, MANY, range(6, 10))
    steps(plain, reference, MANY, range(6, 10))
    assert_same(controls(other), controls(plain))


# --- scripts, traces, graphs --------------------------------------------------------------------------------


def scripted(model: nn.Module, x: Tensor) -> nn.Module:
    return torch.jit.script(model)


def traced(model: nn.Module, x: Tensor) -> nn.Module:
    return torch.jit.trace(model, (x,))


def exported(model: nn.Module, x: Tensor) -> nn.Module:
    return torch.export.export(model, (x,), strict=False).module()


def exported_strictly(model: nn.Module, x: Tensor) -> nn.Module:
    return torch.export.export(model, (x,), strict=True).module()


def compiled(model: nn.Module, x: Tensor) -> nn.Module:
    torch._dynamo.reset()
    return torch.compile(model, fullgraph=True, backend="eager")


USES = [scripted, traced, exported, exported_strictly, compiled]


@pytest.mark.filterwarnings("ignore")  # of torch's compilers
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("count", few([0, 1, 8], 0, 8))
@pytest.mark.parametrize("use", USES)
def test_whole_graphs_beside_a_living_optimizer(use: Callable[[nn.Module, Tensor], nn.Module], count: int,
                                                gradient: bool) -> None:
    """In evaluation without gradients, and in training with them; of the model and of a copy."""
    model = MANY.model(torch.float32)
    optimizer = EMSA(model)
    steps(model, optimizer, MANY, range(count), torch.float32)
    optimizer.zero_grad()
    x = MANY.inputs(50, torch.float32)
    model.train(gradient)
    for one in (model, copy.deepcopy(model)) if count or use in (scripted, traced) else (model,):
        with torch.set_grad_enabled(gradient):
            expected = one(x)
            found = use(one, x)(x)
        torch.testing.assert_close(found, expected)
        if gradient:
            found.square().mean().backward()
    optimizer.zero_grad()
    model.train()
    losses = steps(model, optimizer, MANY, range(count, count + 3), torch.float32)
    assert all(loss < 1e3 for loss in losses)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("use", USES)
def test_whole_graphs_of_another_model(use: Callable[[nn.Module, Tensor], nn.Module]) -> None:
    """That no optimizer knows, while one of this model lives: in the middle of its iteration too."""
    model, other, before = MANY.model(torch.float32), WHOLE.model(torch.float32), shared()
    optimizer, x = EMSA(model), WHOLE.inputs(50, torch.float32)
    for number in range(3):
        optimizer.zero_grad()
        loss = loss_of(model, MANY.inputs(number, torch.float32), number)
        found = use(other, x)(x)
        torch.testing.assert_close(found, other(x))
        loss.backward()
        optimizer.step()
    del optimizer, loss
    gc.collect()
    assert shared() == before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("use", USES)
def test_looking_at_the_graph_leaves_the_steps_alone(use: Callable[[nn.Module, Tensor], nn.Module]) -> None:
    ends = []
    for looked in (False, True):
        model = MANY.model()
        optimizer = EMSA(model)
        for number in range(10):
            step(model, optimizer, MANY, number)
            if looked and number in (0, 4):
                model.eval()
                with torch.no_grad():
                    use(model, MANY.inputs(50))(MANY.strange(0))
                model.train()
        ends.append(controls(model))
    assert_same(*ends)


def before_it(model: nn.Module, **options: Any) -> tuple[nn.Module, EMSA]:
    whole = torch.compile(model, backend="eager", **options)
    return whole, EMSA(model)


def before_it_and_run(model: nn.Module, **options: Any) -> tuple[nn.Module, EMSA]:
    whole = torch.compile(model, backend="eager", **options)
    whole(WHOLE.inputs(70)).sum().backward()
    model.zero_grad()
    with torch.no_grad():
        whole(WHOLE.inputs(70))
    return whole, EMSA(model)


def of_the_compiled(model: nn.Module, **options: Any) -> tuple[nn.Module, EMSA]:
    whole = torch.compile(model, backend="eager", **options)
    return whole, EMSA(whole)


def after_it(model: nn.Module, **options: Any) -> tuple[nn.Module, EMSA]:
    optimizer = EMSA(model)
    return torch.compile(model, backend="eager", **options), optimizer


def in_place(model: nn.Module, **options: Any) -> tuple[nn.Module, EMSA]:
    model.compile(backend="eager", **options)
    return model, EMSA(model)


def in_place_after_it(model: nn.Module, **options: Any) -> tuple[nn.Module, EMSA]:
    optimizer = EMSA(model)
    model.compile(backend="eager", **options)
    return model, optimizer


def one_child(model: nn.Module, **options: Any) -> tuple[nn.Module, EMSA]:
    model.body = torch.compile(model.body, backend="eager", **options)
    return model, EMSA(model)


def one_child_in_place(model: nn.Module, **options: Any) -> tuple[nn.Module, EMSA]:
    optimizer = EMSA(model)
    model.body.compile(backend="eager", **options)  # type: ignore[union-attr]
    return model, optimizer


@pytest.mark.parametrize("fullgraph", few([False, True], True))
@pytest.mark.parametrize("make", [before_it, before_it_and_run, of_the_compiled, after_it, in_place,
                                  in_place_after_it, one_child, one_child_in_place])
def test_compiled_models_are_trained_as_others_or_it_is_said(make: Callable[..., tuple[nn.Module, EMSA]],
                                                             fullgraph: bool) -> None:
    torch._dynamo.reset()
    plain = WHOLE.model()
    start, reference = controls(plain), EMSA(plain)
    steps(plain, reference, WHOLE, range(10))
    model = WHOLE.model()
    with said(UserWarning) as texts:
        whole, optimizer = make(model, fullgraph=fullgraph)
        losses = steps(whole, optimizer, WHOLE, range(10))
    torch._dynamo.reset()
    assert all(loss < 1e2 for loss in losses)
    try:
        assert_near(controls(model), controls(plain), start, 1e-6)
    except AssertionError:
        assert any("EMSA" in text and "compil" in text for text in texts), texts
        first = WHOLE.model().parameters()
        assert not any(torch.equal(*pair) for pair in zip(model.parameters(), first, strict=True))


@pytest.mark.filterwarnings("ignore")
def test_evaluation_of_a_compiled_model_between_steps() -> None:
    torch._dynamo.reset()
    ends = []
    for looked in (False, True):
        model = WHOLE.model()
        whole, optimizer = torch.compile(model, backend="eager"), EMSA(model)
        for number in range(10):
            step(whole, optimizer, WHOLE, number)
            if looked:
                with torch.no_grad():
                    whole.eval()(WHOLE.strange(number))
                whole.train()
        ends.append(controls(model))
    torch._dynamo.reset()
    assert_same(*ends)
