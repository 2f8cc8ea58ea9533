"""Models and loops that change while they are watched keep their numbers, and what is measured is of what is there now."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from recorder import Observation, WatchWarning
from recorder.watch import watch
from tests.recorder.watch.test_copies import FLOATS, equal


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
