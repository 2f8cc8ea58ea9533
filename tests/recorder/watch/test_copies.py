"""Whatever is made of a model while it is watched is what is made of an unwatched one, and the training stays the same."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recorder.watch import watch

FLOATS = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
STEPS = 7


class Plain(nn.Module):
    """Two layers and a functional activation."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.leave(torch.relu(self.enter(inputs)))
        return result


class OwnState(Plain):
    """Decides itself what is pickled: all of its attributes."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()


class OwnCall(Plain):
    """Has a `__call__` of its own."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class Nested(nn.Module):
    """A container with an own parameter in a container, one leaf of which runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.scale = (
            nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.GELU(), OwnCall()),
            nn.Parameter(torch.ones(2)),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.body(self.body[0](inputs)) * self.scale
        return result


def normed() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    nn.utils.parametrizations.weight_norm(model[0])
    nn.utils.parametrizations.spectral_norm(model[2])
    return model


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.SiLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    return model


def frozen() -> nn.Module:
    model = Plain()
    model.enter.requires_grad_(False)
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": Plain,
    "sequential": lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 2)),
    "own state": OwnState,
    "own call": OwnCall,
    "nested": Nested,
    "one layer": lambda: nn.Linear(6, 2),
    "graph module": lambda: torch.fx.symbolic_trace(Plain()),
    "parametrized": normed,
    "tied": tied,
    "frozen": frozen,
}


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def state(model: nn.Module) -> nn.Module:
    file, twin = io.BytesIO(), copy.deepcopy(model)
    torch.save(model.state_dict(), file)
    file.seek(0)
    twin.load_state_dict(torch.load(file, weights_only=True))
    return twin


def functional(model: nn.Module) -> Callable[[Tensor], Tensor]:
    parameters = {name: p.detach().clone() for name, p in model.named_parameters()}
    return lambda inputs: torch.func.functional_call(model, parameters, (inputs,))


def jacobian(model: nn.Module) -> Callable[[Tensor], Tensor]:
    torch.func.jacrev(model)(FLOATS[0])
    return model


def vmapped(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda inputs: torch.func.vmap(model)(inputs)


def shapes(model: nn.Module) -> Callable[[Tensor], Tensor]:
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
        model(torch.empty(8, 6))
    return model


def replica(model: nn.Module) -> nn.Module:
    twin = model._replicate_for_data_parallel()
    for name, parameter in model._parameters.items():
        setattr(twin, name, parameter)
    return twin


def averaged(model: nn.Module) -> nn.Module:
    return torch.optim.swa_utils.AveragedModel(model).module


def compiled(model: nn.Module) -> nn.Module:
    torch._dynamo.reset()
    return torch.compile(model, backend="eager", fullgraph=True)


ACTIONS: dict[str, Callable[[nn.Module], Callable[[Tensor], Tensor]]] = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "save": saved,
    "state dict": state,
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "average": averaged,
    "replica": replica,
    "functional call": functional,
    "jacobian": jacobian,
    "vmap": vmapped,
    "fake tensors": shapes,
    "fx": torch.fx.symbolic_trace,
    "trace": lambda model: torch.jit.trace(model, FLOATS),
    "script": torch.jit.script,
    "export": lambda model: torch.export.export(model, (FLOATS,)).module(),
    "strict export": lambda model: torch.export.export(model, (FLOATS,), strict=True).module(),
    "compile": compiled,
}
SHARING = {copy.copy, replica}  # share the attributes of their original, by design
SLOW = {"strict export", "export", "compile"}  # at one moment of the step only
IMPOSSIBLE = {  # without a watch too
    ("parametrized", "trace"), ("parametrized", "pickle"), ("parametrized", "save"), ("parametrized", "fx"),
    ("parametrized", "script"), ("tied", "trace"), ("own call", "fx"),
}  # fmt: skip
MOMENTS = ("before", "after forward", "after backward", "after the optimizer", "after step")


def left_in(made: nn.Module, model: nn.Module) -> int:
    """Modules of `made` that still carry something of a watch, and are not the model's own."""
    own = {id(module) for module in model.modules()}
    return sum(vars(module).get("_compiled_call_impl") is not None for module in made.modules() if id(module) not in own)


def run(make: Callable[[], nn.Module], action: Callable[..., Any] | None, moments: tuple[str, ...], every: int | None) -> Any:
    """Losses, weights, RNG state, and what the action gave at each moment."""
    torch.manual_seed(0)
    model, looks, given = make(), [], []
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1, momentum=0.9)
    losses = []

    def act(moment: str) -> None:
        if action is not None and moment in moments:
            kept = torch.get_rng_state()
            made = action(model)
            with torch.no_grad():
                given.append(made(FLOATS).clone())
            if action not in SHARING and isinstance(made, nn.Module):
                assert left_in(made, model) == 0
            torch.set_rng_state(kept)

    context = watch(model, optimizer, every=every, sink=looks.append, detailed=True) if every else None
    seen = context.__enter__() if context else None
    for _ in range(STEPS):
        act("before")
        optimizer.zero_grad()
        loss = model(FLOATS).square().mean()
        act("after forward")
        loss.backward()
        act("after backward")
        optimizer.step()
        act("after the optimizer")
        losses.append(loss.item())
        if seen:
            seen.step(loss, 8)
        act("after step")
    if context:
        context.__exit__(None, None, None)
    return losses, [p.detach().clone() for p in model.parameters()], torch.get_rng_state(), given, looks


def equal(one: Any, other: Any) -> bool:
    tensors = zip([*one[1], one[2], *one[3]], [*other[1], other[2], *other[3]], strict=True)
    return one[0] == other[0] and all(torch.equal(a, b) for a, b in tensors)


def pairs() -> list[Any]:
    """Every model with every action that torch allows; what is slow, and not of a plain model, is left to `make soak`."""
    every = [(name, action) for name in MODELS for action in ACTIONS if (name, action) not in IMPOSSIBLE]
    slow = [action in SLOW and name != "plain" for name, action in every]
    return [pytest.param(*pair, marks=pytest.mark.soak if late else ()) for pair, late in zip(every, slow, strict=True)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "action"), pairs())
def test_what_is_made_of_a_watched_model_is_what_is_made_of_any(name, action):
    moments = MOMENTS[:1] if action in SLOW else MOMENTS
    plain = run(MODELS[name], ACTIONS[action], moments, None)
    watched = run(MODELS[name], ACTIONS[action], moments, 3)
    assert equal(plain, watched)
    assert len(watched[4]) == STEPS // 3
    assert all(layer.HasField("weight_norm") for layer in watched[4][-1].layers if layer.HasField("gradient_norm"))
    assert watched[4][-1].metrics["gradient_norm"] > 0
