"""Watching: the training stays the same bit for bit, and the numbers are what their definitions say."""

import contextlib

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from recorder.observation import Observation
from recorder.watch import watch


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
