"""Models and loops that change while they are watched keep their numbers, and what is measured is of what is there now."""

import copy
import gc
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.optimizer import _global_optimizer_pre_hooks

from recorder import Observation, WatchWarning
from recorder.watch import watch
from schemas.errors import RecordingError
from tests.recorder.test_wild import FLOATS, Plain, equal


class LoRA(nn.Module):
    """A frozen layer and a low-rank change of it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down, self.up = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.base(inputs) + self.up(self.down(inputs))
        return result


class Symmetric(nn.Module):
    """A parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).T


def two() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))


def assign(model: nn.Sequential) -> None:
    model.load_state_dict({name: 2 * value.clone() for name, value in model.state_dict().items()}, assign=True)


def swap(model: nn.Sequential) -> None:
    model[0] = nn.Linear(6, 6)


def widen(model: nn.Sequential) -> None:
    model[0], model[2] = nn.Linear(6, 12), nn.Linear(12, 2)


def deepen(model: nn.Sequential) -> None:
    model.append(nn.Linear(2, 2))


def shrink(model: nn.Sequential) -> None:
    model[0] = nn.Identity()


def reset(model: nn.Sequential) -> None:
    model[2].weight = nn.Parameter(3 * model[2].weight.detach().clone())


def same_memory(model: nn.Sequential) -> None:
    model[2].weight = nn.Parameter(model[2].weight.detach())


def data(model: nn.Sequential) -> None:
    for parameter in model.parameters():
        parameter.data = 2 * parameter.data


def lora(model: nn.Sequential) -> None:
    model[0] = LoRA(model[0])


def parametrized(model: nn.Sequential) -> None:
    parametrize.register_parametrization(model[0], "weight", Symmetric())


def normed(model: nn.Sequential) -> None:
    nn.utils.parametrizations.weight_norm(model[2])


def old_normed(model: nn.Sequential) -> None:
    nn.utils.weight_norm(model[2])


def tie(model: nn.Sequential) -> None:
    model[2] = nn.Linear(6, 6)
    model[2].weight = model[0].weight


def freeze(model: nn.Sequential) -> None:
    model[0].requires_grad_(False)


def hooked(model: nn.Sequential) -> None:
    model[0].register_forward_hook(lambda _, __, output: output * 2)


def compiled(model: nn.Sequential) -> None:
    model[2].compile(backend="eager")


def double_then_float(model: nn.Sequential) -> None:
    model.double().float()


CHANGES = (
    assign, swap, widen, deepen, shrink, reset, same_memory, data, lora, parametrized, normed, old_normed, tie, freeze, hooked,
    compiled, double_then_float,
)  # fmt: skip


def norms(model: nn.Module, paths: list[str]) -> dict[str, tuple[float, float | None]]:
    """Per path of a module: the norm of its weights, and of their gradients."""
    found = {}
    for path in paths:
        try:
            parameters = list(model.get_submodule(path).parameters())
        except AttributeError:
            continue
        gradients = [p.grad.flatten() for p in parameters if p.grad is not None and p.requires_grad]
        weights = torch.cat([p.detach().flatten() for p in parameters]).norm() if parameters else torch.zeros(())
        found[path] = (float(weights), float(torch.cat(gradients).norm()) if gradients else None)
    return found


def changing(change: Callable[[nn.Sequential], None], every: int | None, moment: int) -> Any:
    """Train 12 steps, with the change after step 4 (`moment` 0: right after its backward). Asserts what looks show."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    model, looks, losses = two(), [], []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    context = watch(model, optimizer, every=every, sink=looks.append) if every else None
    seen = context.__enter__() if context else None
    for step in range(1, 13):
        optimizer.zero_grad()
        loss = model(FLOATS).square().mean()
        loss.backward()
        true = norms(model, ["0", "2", "3", "0.base", "0.down", "0.up"])
        optimizer.step()
        losses.append(loss.item())
        if step == 4 and moment == 0:
            change(model)
        if seen:
            look = seen.step(loss, 8)
            if look is not None and not (step == 4 and moment == 0):
                right(look, true)
        if step == 4:
            if moment:
                change(model)
            optimizer.param_groups[0]["params"] = [p for p in model.parameters() if p.requires_grad]
    if context:
        context.__exit__(None, None, None)
    return losses, [p.detach().clone() for p in model.parameters()], torch.get_rng_state(), [], looks


def right(look: Observation, true: dict[str, tuple[float, float | None]]) -> None:
    """Every number of a look is that of the model, or missing."""
    for layer in look.layers:
        path = "0.base" if layer.layer_id == "0" and "0.base" in true else layer.layer_id
        if path not in true:
            continue
        weight, gradient = true[path]
        if layer.HasField("weight_norm"):
            assert layer.weight_norm == pytest.approx(weight, rel=1e-4)
        if layer.HasField("gradient_norm"):
            assert layer.gradient_norm == pytest.approx(gradient, rel=1e-4)
        if gradient and layer.HasField("update_frequency"):
            assert layer.update_frequency > 0


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("moment", [0, 1])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_model_is_followed(change, moment, every):
    with warnings.catch_warnings():
        warnings.simplefilter("error", WatchWarning)
        plain, watched = changing(change, None, moment), changing(change, every, moment)
    assert equal(plain, watched)
    looks = watched[4]
    assert len(looks) == (12 if every > 1 else 11) // every
    last = {layer.layer_id: layer for layer in looks[-1].layers}
    assert last["2"].HasField("weight_norm")
    assert last["2"].HasField("samples_per_s")
    assert change is not deepen or last["3"].HasField("samples_per_s")
    if change is lora:
        assert {"0", "0.down", "0.up", "2"} <= set(last)
        assert not last["0"].HasField("gradient_norm")
        assert last["0.up"].gradient_norm > 0


class Experts(nn.Module):
    """Three experts, of which the step's number chooses one: the last is not called before step 9."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.experts = nn.Linear(6, 6), nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3))
        self.leave, self.calls = nn.Linear(6, 2), 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        expert = self.experts[2 if self.calls > 8 else self.calls % 2]
        result: Tensor = self.leave(expert(self.enter(inputs)).relu())
        return result


def test_an_expert_that_first_runs_later_joins_the_topology():
    model, looks = Experts(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, every=2, sink=looks.append) as seen:
        for _ in range(20):
            optimizer.zero_grad()
            loss = model(FLOATS).square().mean()
            loss.backward()
            optimizer.step()
            seen.step(loss, 8)
    layers = {layer.layer_id: layer for layer in seen.topology.layers}
    assert set(layers) == {"enter", "leave", *(f"experts.{index}.0" for index in range(3))}
    assert layers["experts.2.0"].depth == 1
    chosen = [f"experts.{index}.0" for index in range(3)]
    edges = {(edge.source, edge.target) for edge in seen.topology.connections}
    assert edges == {("enter", expert) for expert in chosen} | {(expert, "leave") for expert in chosen}
    assert {a.activation_id for a in seen.topology.activations} >= {f"experts.{index}.1" for index in range(3)}
    last = {layer.layer_id: layer for layer in looks[-1].layers}
    assert {path for path, layer in last.items() if layer.HasField("samples_per_s")} == {"enter", "leave", "experts.2.0"}
    assert last["experts.2.0"].gradient_norm > 0


def steps(model: nn.Module, optimizer: Any, count: int, **options: Any) -> tuple[list[Observation], list[str]]:
    """Looks of an ordinary loop, and the watch's warnings."""
    looks: list[Observation] = []
    given = options.pop("optimizers", optimizer)
    loss_of = options.pop("loss", lambda: model(FLOATS).square().mean())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with watch(model, given, every=2, sink=looks.append, **options) as seen:
            for _ in range(count):
                optimizer.zero_grad()
                loss = loss_of()
                loss.backward()
                optimizer.step()
                seen.step(loss, 8)
    return looks, [str(one.message) for one in caught if one.category is WatchWarning]


class Yielding(Plain):
    """Its forward is a generator."""

    def forward(self, inputs: Tensor) -> Iterator[Tensor]:
        yield from (self.leave(torch.relu(self.enter(inputs))) for _ in range(2))


def by_parts(model: nn.Module) -> Tensor:
    return model.leave(model.enter(FLOATS)).square().mean()


PARTS = {
    "generator": (Yielding, lambda model: sum(output.square().mean() for output in model(FLOATS))),
    "children": (Plain, by_parts),
    "method": (Plain, lambda model: model.forward(FLOATS).square().mean()),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_model_that_is_not_called_as_a_whole_shows_its_layers_and_one_warning(name):
    make, loss = PARTS[name]
    model = make()
    looks, told = steps(model, torch.optim.SGD(model.parameters(), 0.1), 12, loss=lambda: loss(model))
    assert len(told) == 1
    assert "is not called as a whole" in told[0]
    layers = {layer.layer_id: layer for layer in looks[-1].layers}
    assert set(layers) == {"enter", "leave"}
    assert all(layer.gradient_norm > 0 and layer.samples_per_s > 0 and layer.update_frequency == 1 for layer in layers.values())
    assert [(edge.source_layer_id, edge.target_layer_id) for edge in looks[-1].connections] == (
        [("enter", "leave")] if name == "children" else []
    )


def test_a_model_whose_layers_can_not_be_seen_is_warned_of_once_and_the_rest_is_measured():
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    looks, told = steps(model, optimizer, 12, loss=lambda: sum(p.norm() for p in model.parameters()))
    assert len(told) == 1
    assert "expected a layer of Plain to run" in told[0]
    assert looks[-1].layers == ()
    assert looks[-1].metrics["gradient_norm"] == pytest.approx(4**0.5)
    assert looks[-1].parameters[0].update_magnitude > 0


def test_code_of_torch_compile_is_left_as_it_is_and_says_how_to_measure_it():
    torch._dynamo.reset()
    model, compilations = Plain(), []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        compilations.append(graph)
        return graph.forward

    fast = torch.compile(model, backend=backend, fullgraph=True)
    looks, told = steps(model, torch.optim.SGD(model.parameters(), 0.1), 12, loss=lambda: fast(FLOATS).square().mean())
    assert len(compilations) == 1
    assert len(told) == 1
    assert "watch the compiled model itself" in told[0]
    assert looks[-1].metrics["gradient_norm"] > 0
    looks, told = steps(fast, torch.optim.SGD(model.parameters(), 0.1), 6, loss=lambda: fast(FLOATS).square().mean())
    assert (len(compilations), told) == (1, [])
    assert looks[-1].layers[0].gradient_norm > 0


def test_a_compiled_function_inside_of_a_model_is_compiled_alike():
    torch._dynamo.reset()

    @torch.compile(backend="eager", fullgraph=True)
    def middle(hidden: Tensor) -> Tensor:
        return torch.relu(hidden) * 2

    class Mixed(Plain):
        def forward(self, inputs: Tensor) -> Tensor:
            result: Tensor = self.leave(middle(torch.tanh(self.enter(inputs))))
            return result

    model = Mixed()
    looks, told = steps(model, torch.optim.SGD(model.parameters(), 0.1), 12)
    assert told == []
    assert "enter.tanh" in {a.activation_id for a in looks[-1].activations}


def test_several_optimizers_have_their_groups_one_after_the_other():
    model = Plain()
    first = torch.optim.SGD(model.enter.parameters(), 0.1, momentum=0.5)
    second = torch.optim.Adam([{"params": model.leave.parameters(), "name": "head"}], lr=0.01)

    class Both:
        def zero_grad(self) -> None:
            model.zero_grad()

        def step(self) -> None:
            first.step()
            second.step()

    looks, told = steps(model, Both(), 8, optimizers=(one for one in (first, second)), detailed=True)
    assert told == []
    assert [(g.parameter_id, g.optimizer_family) for g in looks[-1].parameters] == [("group-0", "sgd"), ("head", "adam")]
    assert all(group.update_magnitude > 0 and group.gradient_variance > 0 for group in looks[-1].parameters)
    assert set(looks[-1].influence) == {("enter.relu", 0)}


def test_an_optimizer_that_is_not_given_leaves_its_layers_without_a_gradient():
    model = Plain()
    whole, part = torch.optim.SGD(model.parameters(), 0.1), torch.optim.SGD(model.enter.parameters(), 0.1)
    looks, told = steps(model, whole, 8, optimizers=part)
    enter, leave = looks[-1].layers
    assert told == []
    assert enter.HasField("gradient_norm")
    assert not leave.HasField("gradient_norm")
    assert leave.update_frequency == 1


def test_a_group_that_joins_later_is_measured_and_one_of_another_model_is_not():
    model, other = Plain(), nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.enter.parameters(), 0.1)
    with watch(model, optimizer, every=2) as seen:
        for step in range(1, 9):
            optimizer.zero_grad()
            loss = other(model(FLOATS)).square().mean()
            loss.backward()
            optimizer.step()
            look = seen.step(loss, 8)
            if step == 4:
                optimizer.add_param_group({"params": other.parameters(), "name": "other"})
                optimizer.add_param_group({"params": model.leave.parameters(), "name": "leave"})
    assert [group.parameter_id for group in look.parameters] == ["group-0", "leave"]
    assert look.parameters[1].update_magnitude > 0


class Silent:
    """Shows an optimizer's groups, and steps it."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner, self.param_groups = inner, inner.param_groups

    def step(self) -> None:
        self.inner.step()

    def zero_grad(self) -> None:
        self.inner.zero_grad()


def test_a_wrapped_optimizer_is_measured_by_its_groups():
    model = Plain()
    looks, told = steps(model, Silent(torch.optim.SGD(model.parameters(), 0.1)), 8, detailed=True)
    assert told == []
    assert looks[-1].parameters[0].update_magnitude > 0
    assert any(gain > 0 for *_, gain in looks[-1].influence.values())


@pytest.mark.parametrize("given", [None, [], "sgd", 3, [nn.Parameter(torch.ones(2))]])
def test_what_is_no_optimizer_is_refused_with_the_word_for_what_is_missing(given):
    with pytest.raises(RecordingError, match="param_groups"), watch(Plain(), given):
        pass


@pytest.mark.parametrize("every", [0, -1])
def test_an_interval_under_one_step_is_refused(every):
    model = Plain()
    with pytest.raises(RecordingError, match="every >= 1"), watch(model, torch.optim.SGD(model.parameters(), 0.1), every=every):
        pass


def test_settings_that_are_no_numbers_are_missing():
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    optimizer.param_groups[0] |= {"lr": torch.tensor(0.25), "momentum": 0}
    more = optimizer.param_groups[0]
    looks, told = steps(model, optimizer, 6)
    assert (told, looks[-1].parameters[0].learning_rate) == ([], 0.25)
    with watch(model, optimizer, every=1) as seen:
        for _ in range(3):
            model(FLOATS).sum().backward()
            more |= {"lr": None, "momentum": None}
            look = seen.step(1.0, 8)
    assert not look.parameters[0].HasField("learning_rate")
    assert not look.parameters[0].HasField("momentum")


@pytest.mark.parametrize("loss", [None, torch.ones(3), "high"])
def test_a_loss_that_is_no_number_is_missing_and_told_once(loss):
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, every=2) as seen, pytest.warns(WatchWarning, match="loss") as caught:
        for _ in range(6):
            model(FLOATS).square().mean().backward()
            optimizer.step()
            look = seen.step(loss, 8)
    assert "loss" not in look.metrics
    assert look.metrics["gradient_norm"] > 0
    assert len([one for one in caught if one.category is WatchWarning]) == 1


class Failing(Plain):
    """Raises in some passes."""

    fault: BaseException | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(self.enter(inputs))
        if self.fault is not None:
            raise self.fault
        result: Tensor = self.leave(hidden)
        return result


@pytest.mark.parametrize("fault", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3), torch.OutOfMemoryError("full")])
@pytest.mark.parametrize("every", [1, 3])
def test_what_a_forward_raises_comes_out_as_it_is_and_the_watch_goes_on(fault, every):
    model = Failing()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    looks = []
    with watch(model, optimizer, every=every, sink=looks.append) as seen:
        for step in range(10):
            model.fault = fault if step in (0, 2, 4, 5) else None
            try:
                loss = model(FLOATS).square().mean()
            except type(fault) as raised:
                assert raised is fault
                assert torch.overrides._len_torch_function_stack() == 0
                continue
            loss.backward()
            optimizer.step()
            seen.step(loss, 8)
    assert len(looks[-1].layers) == 2
    assert looks[-1].activations[0].activation_frequency == 1


def test_a_pass_that_copies_a_part_of_its_model_gets_an_ordinary_part():
    class Teacher(Plain):
        def forward(self, inputs: Tensor) -> Tensor:
            twin = copy.deepcopy(self.enter)
            with torch.no_grad():
                twin.weight.zero_()
            assert torch.equal(twin(inputs), twin.bias.expand(8, 6))
            return super().forward(inputs)

    model = Teacher()
    looks, told = steps(model, torch.optim.SGD(model.parameters(), 0.1), 8)
    assert told == []
    assert len(looks) == 4


def test_nothing_is_left_of_a_watch_on_model_optimizer_or_torch():
    model = nn.Sequential(Plain(), nn.ReLU(), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = [dict(vars(module)) for module in model.modules()]
    hooks = len(_global_optimizer_pre_hooks)
    with watch(model, optimizer, every=2, detailed=True) as seen:
        for _ in range(5):
            loss = model(FLOATS).square().mean()
            loss.backward()
            optimizer.step()
            seen.step(loss, 8)
    seen.step(loss, 8)
    assert [vars(module) for module in model.modules()] == before
    assert not optimizer._optimizer_step_pre_hooks
    assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in model.parameters())
    assert len(_global_optimizer_pre_hooks) == hooks
    assert not torch.nn.modules.module._has_any_global_hook()
    alive, mine = weakref.ref(model), weakref.ref(next(model.parameters()))
    del model, optimizer, loss, before
    gc.collect()
    assert (alive(), mine()) == (None, None)
    assert seen.topology.layers


def test_a_parameter_that_is_an_activations_input_or_an_output_keeps_no_hook():
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.leave = nn.Parameter(torch.ones(6)), nn.Linear(6, 2)

        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            return self.leave(inputs * torch.sigmoid(self.gate)), self.gate

    model = Bare()
    looks, told = steps(
        model, torch.optim.SGD(model.parameters(), 0.1), 8, loss=lambda: sum(part.square().mean() for part in model(FLOATS))
    )
    assert told == []
    assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in model.parameters())
    assert looks[-1].layers[0].gradient_norm > 0


def test_two_watches_of_one_model_both_see_it_and_leave_in_any_order():
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    contexts = [watch(model, optimizer, every=every) for every in (1, 2)]
    seen = [context.__enter__() for context in contexts]
    for step in range(8):
        loss = model(FLOATS).square().mean()
        loss.backward()
        optimizer.step()
        looks = [one.step(loss, 8) for one in seen]
        if step == 6:
            contexts[0].__exit__(None, None, None)
    contexts[1].__exit__(None, None, None)
    assert looks[0] is None
    assert len(looks[1].layers) == 2
    assert all("_compiled_call_impl" not in vars(module) for module in model.modules())


def test_another_thread_runs_the_model_undisturbed():
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    right, wrong, stop = model(FLOATS).detach(), [], threading.Event()
    model.requires_grad_(True)

    def evaluate() -> None:
        while not stop.is_set():
            if not torch.equal(frozen(FLOATS), right):
                wrong.append(1)

    frozen = copy.deepcopy(model)
    thread = threading.Thread(target=evaluate)
    thread.start()
    looks, told = steps(model, optimizer, 30)
    stop.set()
    thread.join()
    assert (wrong, told, len(looks)) == ([], [], 15)


def test_passes_without_gradients_accumulation_and_recomputation_are_told_apart():
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def loss() -> Tensor:
        with torch.no_grad():
            model(FLOATS)
        once = torch.utils.checkpoint.checkpoint(model, FLOATS, use_reentrant=False).square().mean()
        return once + model(FLOATS).square().mean()

    looks, told = steps(model, optimizer, 8, loss=loss)
    assert told == []
    assert looks[-1].activations[0].activation_frequency == 2


def test_writes_past_autograd_are_never_called_no_writes():
    model, teacher = Plain(), Plain().requires_grad_(False)
    pair = nn.ModuleDict({"student": model, "teacher": teacher})

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = pair

        def forward(self, inputs: Tensor) -> Tensor:
            result: Tensor = (self.pair["student"](inputs) - self.pair["teacher"](inputs)).square().mean()
            return result

    whole = Pair()
    optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=True)
    with watch(whole, optimizer, every=2) as seen:
        for _ in range(8):
            optimizer.zero_grad()
            loss = whole(FLOATS)
            loss.backward()
            optimizer.step()
            look = seen.step(loss, 8)
            true = norms(whole, ["pair.teacher.enter"])["pair.teacher.enter"][0]
            for one, other in zip(teacher.parameters(), model.parameters(), strict=True):
                one.data.mul_(0.9).add_(other.data, alpha=0.1)
    layers = {layer.layer_id: layer for layer in look.layers}
    assert not layers["pair.student.enter"].HasField("update_frequency")
    assert layers["pair.teacher.enter"].weight_norm == pytest.approx(true, rel=1e-5)
