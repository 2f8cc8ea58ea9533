"""Watching: the training stays the same bit for bit, and the numbers are what their definitions say."""

import contextlib
import math
import statistics
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from recorder.watch import Watch, watch
from recorder.watch.observation import Observation, gpu_percent


class Mixed(nn.Module):
    """Batch normalization, dropout, a functional activation and an attention block in one model."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm, self.drop = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.2)
        self.attention, self.leave = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.drop(torch.relu(self.norm(self.enter(inputs))))
        tokens = hidden.reshape(-1, 4, 4)
        mixed = tokens + self.attention(tokens, tokens, tokens)[0]
        logits: Tensor = self.leave(mixed.flatten(1))
        return logits


def recurrent() -> nn.Module:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.leave = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = self.leave(self.cell(inputs[:, None])[0][:, -1])
            return logits

    return Last()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, *, steps: int, every: int | None) -> tuple[list[float], list]:
    """Losses and observations of a short training; `every` None trains unwatched."""
    data = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(64, 8, generator=data), torch.randint(0, 3, (64,), generator=data)
    losses: list[float] = []
    looks: list[Observation] = []
    context = contextlib.nullcontext() if every is None else watch(model, optimizer, every=every, sink=looks.append)
    with context as seen:
        for _ in range(steps):
            part = torch.randint(0, 64, (20,))
            optimizer.zero_grad()
            loss = cross_entropy(model(inputs[part]), targets[part])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if seen is not None:
                seen.step(loss, 20)
    return losses, looks


MODELS = {
    "mlp": lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(inplace=True), nn.Dropout(0.1), nn.Linear(16, 3)),
    "mixed": Mixed,
    "recurrent": recurrent,
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("family", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
def test_training_is_the_same_bit_for_bit_with_and_without(name, family):
    results = []
    for every in (None, 2):
        torch.manual_seed(0)
        model = MODELS[name]()
        losses, _ = train(model, family(model.parameters(), lr=0.01), steps=12, every=every)
        results.append((losses, [value.clone() for value in model.state_dict().values()], torch.get_rng_state()))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
    assert torch.equal(results[0][2], results[1][2])


def test_numbers_are_those_of_their_definitions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    inputs, targets = torch.randn(20, 8), torch.randint(0, 3, (20,))
    with watch(model, optimizer, every=2) as seen:
        for _ in range(2):
            before = [p.detach().clone() for p in model.parameters()]
            optimizer.zero_grad()
            hidden = torch.relu(inputs @ model[0].weight.detach().T + model[0].bias.detach())
            loss = cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            look = seen.step(loss, 20)
    assert look is not None
    after, gradients = list(model.parameters()), [p.grad for p in model.parameters()]
    first = look.layers[0]
    norm = torch.cat([g.flatten() for g in gradients[:2]]).norm().item()
    weight = torch.cat([b.flatten() for b in before[:2]]).norm().item()
    update = torch.cat([(a.detach() - b).flatten() for a, b in zip(after[:2], before[:2], strict=True)]).norm().item()
    assert first.gradient_norm == pytest.approx(norm, rel=1e-5)
    assert first.weight_norm == pytest.approx(weight, rel=1e-5)
    assert first.update_magnitude == pytest.approx(update / weight, rel=1e-4)
    assert first.update_frequency == 1.0
    everything = torch.cat([g.flatten() for g in gradients]).norm().item()
    assert look.metrics["gradient_norm"] == pytest.approx(everything, rel=1e-5)
    relu = look.activations[0]
    assert relu.saturation_rate == pytest.approx((hidden[:16] == 0).float().mean().item())
    assert relu.saturation_events == (hidden[:16] == 0).all(dim=0).sum().item()
    assert relu.gradient_contribution == pytest.approx(1.0)
    assert relu.activation_frequency == 1.0
    assert look.connections[0].data_flow_volume == 20 * 16 * 4
    assert look.parameters[0].momentum == 0.5
    assert look.parameters[0].learning_rate == pytest.approx(0.1)


def test_gradients_are_measured_before_clipping():
    torch.manual_seed(0)
    model = nn.Linear(8, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, targets = torch.randn(20, 8), torch.randint(0, 3, (20,))
    with watch(model, optimizer, every=2) as seen:
        for _ in range(2):
            optimizer.zero_grad()
            loss = cross_entropy(model(inputs), targets)
            loss.backward()
            norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3))
            optimizer.step()
            look = seen.step(loss, 20)
    assert look is not None
    assert look.metrics["gradient_norm"] == pytest.approx(norm, rel=1e-5)


def test_a_frozen_layer_does_not_move_and_has_no_gradient():
    torch.manual_seed(0)
    model = MODELS["mlp"]()
    model[0].requires_grad_(False)
    _, looks = train(model, torch.optim.Adam(list(model.parameters()), lr=0.01), steps=8, every=4)
    first, last = looks[-1].layers[0], looks[-1].layers[-1]
    assert not first.HasField("gradient_norm")
    assert not first.HasField("update_magnitude")
    assert first.weight_norm > 0
    assert first.HasField("update_frequency")
    assert first.update_frequency == 0.0
    assert last.update_frequency == 1.0


def test_what_needs_a_history_is_missing_at_first():
    torch.manual_seed(0)
    model = MODELS["mlp"]()
    _, looks = train(model, torch.optim.Adam(model.parameters(), lr=0.01), steps=9, every=3)
    assert not looks[0].layers[0].HasField("gradient_variance")
    assert looks[1].layers[0].HasField("gradient_variance")
    assert [look.activations[0].HasField("stability") for look in looks] == [False, False, True]
    assert "grad_var" not in looks[0].metrics


def test_every_hook_is_gone_afterwards():
    torch.manual_seed(0)
    model = Mixed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    train(model, optimizer, steps=3, every=2)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not optimizer._optimizer_step_pre_hooks
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters() if p._post_accumulate_grad_hooks)


def step_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Observation, list[Tensor], list[Tensor]]:
    """The measured second step of a training, the weights before its update, and its gradients."""
    inputs, targets = torch.randn(20, 8), torch.randint(0, 3, (20,))
    with watch(model, optimizer, every=2) as seen:
        for _ in range(2):
            before = [p.detach().clone() for p in model.parameters()]
            optimizer.zero_grad()
            loss = cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            look = seen.step(loss, 20)
    assert look is not None
    return look, before, [p.grad.clone() for p in model.parameters()]


def test_each_parameter_group_has_its_own_numbers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    first, second = list(model[0].parameters()), list(model[2].parameters())
    groups = [{"params": first, "name": "body"}, {"params": second, "lr": 0.02, "momentum": 0.9}]
    look, before, gradients = step_of(model, torch.optim.SGD(groups, lr=0.5))
    body, head = look.parameters
    assert (body.parameter_id, head.parameter_id) == ("body", "group-1")
    assert body.optimizer_family == head.optimizer_family == "sgd"
    assert (body.learning_rate, head.learning_rate) == (pytest.approx(0.5), pytest.approx(0.02))
    assert (body.momentum, head.momentum) == (pytest.approx(0.0), pytest.approx(0.9))
    after = list(model.parameters())
    for group, part in ((body, slice(0, 2)), (head, slice(2, 4))):
        weight = torch.cat([w.flatten() for w in before[part]]).norm().item()
        change = torch.cat([(a.detach() - b).flatten() for a, b in zip(after[part], before[part], strict=True)]).norm().item()
        assert group.update_magnitude == pytest.approx(change / weight, rel=1e-4)
    plain = torch.cat([g.flatten() for g in gradients[:2]]).norm().item()  # without momentum, the update is rate * gradient
    assert body.update_magnitude * torch.cat([w.flatten() for w in before[:2]]).norm().item() == pytest.approx(
        0.5 * plain, 1e-4
    )
    assert look.metrics["optimizer_lr"] == pytest.approx(0.5)


def test_a_groups_history_is_of_its_own_gradients():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 1e-4}]
    optimizer = torch.optim.Adam(groups, lr=0.01)
    norms: list[tuple[float, ...]] = []
    handle = optimizer.register_step_pre_hook(
        lambda *_: norms.append(tuple(math.hypot(*(p.grad.norm().item() for p in g["params"])) for g in optimizer.param_groups))
    )
    _, looks = train(model, optimizer, steps=6, every=2)
    handle.remove()
    seen = [norms[k] for k in (1, 3, 5)]
    for index, group in enumerate(looks[-1].parameters):
        one, two, three = (values[index] for values in seen)
        assert group.gradient_variance == pytest.approx(statistics.pvariance([one, two, three]), rel=1e-4)
        before, now = (one + two) / 2, (one + two + three) / 3
        assert group.convergence_rate == pytest.approx(math.log(before / now) / 2, rel=1e-3, abs=1e-6)
    assert not looks[0].parameters[0].HasField("gradient_variance")


def test_gpu_use_is_missing_without_a_gpu_and_the_drivers_word_with_one(monkeypatch):
    model = nn.Linear(8, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert "gpu_util_percent" not in step_of(model, optimizer)[0].metrics
    gpu = torch.device("cuda", 1)
    monkeypatch.setattr(Watch, "device", gpu)
    monkeypatch.setattr(torch.cuda, "utilization", {gpu: 37}.__getitem__)
    assert step_of(model, optimizer)[0].metrics["gpu_util_percent"] == 37.0


class Refused(Exception):
    """Stands for the driver's own error, which is no RuntimeError."""


@pytest.mark.parametrize("fault", [ModuleNotFoundError("pynvml"), RuntimeError("no driver"), Refused("Not Supported")])
def test_a_driver_that_does_not_tell_leaves_gpu_use_missing(monkeypatch, fault):
    def ask(device: torch.device) -> int:
        raise fault

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(NVMLError=Refused))
    monkeypatch.setattr(torch.cuda, "utilization", ask)
    assert gpu_percent(torch.device("cuda", 0)) is None
