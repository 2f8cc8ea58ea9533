"""Optimizers of every kind are watched as they are: several, wrapped, with closures, fused, with groups that come and go."""

import pytest
import torch
from torch import Tensor, nn

from recorder.watch import watch
from schemas.errors import RecordingError
from tests.recorder.watch.test_changing import norms
from tests.recorder.watch.test_copies import FLOATS, Plain
from tests.recorder.watch.test_loops import steps


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
