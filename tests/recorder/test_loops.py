"""Loops of every kind are watched without a change to them, a raise, or more than one warning of what can't be measured."""

import copy
import gc
import threading
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_pre_hooks

from recorder import Observation, WatchWarning
from recorder.watch import watch
from schemas.errors import RecordingError
from tests.recorder.test_changing import norms
from tests.recorder.test_wild import FLOATS, Plain


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


@pytest.mark.parametrize("given", ["model", [nn.Linear(2, 2)], lambda inputs: inputs])
def test_what_is_no_module_is_refused(given):
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1)
    with pytest.raises(RecordingError, match=r"expected a torch\.nn\.Module"), watch(given, optimizer):
        pass


def test_a_model_without_parameters_shows_its_layers():
    model = nn.Sequential(nn.Identity(), nn.ReLU(), nn.Flatten())
    optimizer = torch.optim.SGD([{"params": []}], 0.1)
    with watch(model, optimizer, every=2) as seen:
        for _ in range(4):
            model(FLOATS)
            look = seen.step(0.5, 8)
    assert [(layer.layer_id, layer.HasField("weight_norm")) for layer in look.layers] == [("0", False), ("2", False)]
    assert look.activations[0].saturation_rate > 0
    assert "gradient_norm" not in look.metrics


def test_groups_that_vanish_leave_the_rest():
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, every=2) as seen:
        for step in range(6):
            if step == 3:
                optimizer.param_groups.clear()
            model(FLOATS).sum().backward()
            optimizer.step()
            look = seen.step(1.0, 8)
    assert look.parameters == ()
    assert look.layers[0].weight_norm > 0


@pytest.mark.parametrize("make", [torch.optim.LBFGS, torch.optim.Rprop])
def test_closures_are_measured(make):
    model = Plain()
    optimizer = make(model.parameters(), lr=0.01)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(FLOATS).square().mean()
        loss.backward()
        return loss

    with watch(model, optimizer, every=2, detailed=True) as seen:
        for _ in range(6):
            look = seen.step(optimizer.step(closure), 8)
    assert look.metrics["loss"] > 0
    assert look.parameters[0].update_magnitude > 0


def test_a_gradient_scaler_is_left_as_it_is():
    results = []
    for every in (None, 2):
        torch.manual_seed(0)
        model = Plain()
        optimizer, scaler = torch.optim.SGD(model.parameters(), 0.1), torch.amp.GradScaler("cpu", init_scale=8.0)
        losses = []
        context = watch(model, optimizer, every=every) if every else None
        seen = context.__enter__() if context else None
        for _ in range(6):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(FLOATS).square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
            look = seen.step(loss, 8) if seen else None
        results.append(losses)
    context.__exit__(None, None, None)
    assert results[0] == results[1]
    assert look.layers[0].gradient_norm > 0


def test_layers_that_get_their_shape_in_the_first_pass_are_measured_from_the_second_on():
    model = nn.Sequential(nn.LazyLinear(6), nn.ReLU(), nn.LazyLinear(2))
    looks, told = steps(model, torch.optim.SGD([{"params": list(model.parameters())}], 0.1), 8)
    assert told == []
    assert looks[-1].layers[0].gradient_norm > 0


def test_the_sinks_own_error_comes_out_and_the_watch_goes_on():
    model, calls = Plain(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def sink(look: Observation) -> None:
        calls.append(look)
        raise OSError("disk full")

    with watch(model, optimizer, every=2, sink=sink) as seen:
        for step in range(1, 7):
            loss = model(FLOATS).sum()
            loss.backward()
            if step % 2:
                seen.step(loss, 8)
            else:
                with pytest.raises(OSError, match="disk full"):
                    seen.step(loss, 8)
    assert len(calls) == 3


class Passing(nn.Module):
    """Layers that return their input itself: without gradients and then written to, and sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.same, self.leave = nn.Linear(6, 6), nn.Identity(), nn.Linear(6, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            kept = self.same(inputs * 1)
        kept.add_(self.enter(inputs))
        sparse = self.same(torch.eye(8).to_sparse() * 2)
        result: Tensor = self.leave(torch.sparse.mm(sparse, self.same(kept)))
        return result


def test_a_layer_that_returns_its_input_may_be_written_to_as_before():
    model = Passing()
    looks, told = steps(model, torch.optim.SGD(model.parameters(), 0.1), 8)
    assert told == []
    assert {layer.layer_id for layer in looks[-1].layers} == {"same", "enter", "leave"}
