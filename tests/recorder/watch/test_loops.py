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
from tests.recorder.watch.test_copies import FLOATS, Plain


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


@pytest.mark.parametrize("every", [0, -1])
def test_an_interval_under_one_step_is_refused(every):
    model = Plain()
    with pytest.raises(RecordingError, match="every >= 1"), watch(model, torch.optim.SGD(model.parameters(), 0.1), every=every):
        pass


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
