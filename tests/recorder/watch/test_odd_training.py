"""Odd models and loops: watching neither raises nor changes them, and what cannot be measured is missing."""

import contextlib
import copy
import random
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recorder.watch import watch


@dataclass
class Both:
    """An output that is a plain dataclass."""

    logits: Tensor
    hidden: Tensor


class Shared(nn.Module):
    """One layer that runs twice, one that never runs, and a count of passes that a second look would disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.unused, self.leave = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.passes = 0

    def forward(self, inputs: Tensor) -> Both:
        self.passes += 1
        hidden = torch.relu(self.inner(torch.relu(self.inner(inputs))))
        return Both(self.leave(hidden) * self.passes, hidden)


class Tied(nn.Module):
    """Input and output embedding are one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Embedding(9, 6), nn.Linear(6, 9, bias=False)
        self.leave.weight = self.enter.weight

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.leave(self.enter(tokens))
        return result


class Checkpointed(nn.Module):
    """A block whose activations are computed again during backward."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant, self.enter, self.leave = reentrant, nn.Linear(6, 6), nn.Linear(6, 2)
        self.block = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Dropout(0.3))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = checkpoint(self.block, self.enter(inputs), use_reentrant=self.reentrant)
        result: Tensor = self.leave(hidden)
        return result


class Complex(nn.Module):
    """A complex parameter and a filled tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.turn = nn.Linear(6, 6), nn.Parameter(torch.ones(6, dtype=torch.complex64))

    def forward(self, inputs: Tensor) -> Tensor:
        turned = torch.zeros(len(inputs), 6)
        turned[:] = (self.enter(inputs) * self.turn).real
        return turned


def inplace() -> nn.Module:
    first = (nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.Identity())
    return nn.Sequential(*first, nn.SiLU(inplace=True), nn.Linear(6, 2))


FLOATS = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(0, 9, (8,), generator=torch.Generator().manual_seed(0))
CASES = {
    "shared": (Shared, FLOATS),
    "tied": (Tied, TOKENS),
    "checkpoint": (lambda: Checkpointed(False), FLOATS),
    "reentrant": (lambda: Checkpointed(True), FLOATS),
    "complex": (Complex, FLOATS),
    "inplace": (inplace, FLOATS),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(6), nn.ReLU(), nn.Dropout(), nn.LazyLinear(2)), FLOATS),
    "lone layer": (lambda: nn.Linear(6, 2), FLOATS),
    "sparse": (lambda: nn.Sequential(nn.Embedding(9, 6, sparse=True), nn.Linear(6, 2)), TOKENS),
    "batch norm": (lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.GELU(), nn.Linear(6, 2)), FLOATS),
    "half": (lambda: nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)).bfloat16(), FLOATS.bfloat16()),
    "compiled": (lambda: nn.Sequential(torch.compile(nn.Linear(6, 6), backend="eager"), nn.ReLU(), nn.Linear(6, 2)), FLOATS),
    "scripted": (lambda: nn.Sequential(torch.jit.script(nn.Linear(6, 6)), nn.ReLU(), nn.Linear(6, 2)), FLOATS),
    "glu": (lambda: nn.Sequential(nn.Linear(6, 8), nn.GLU(), nn.Linear(4, 2)), FLOATS),
}


def loop(build, inputs: Tensor, *, every: int | None, autocast: bool = False, kind: str = "sgd", validate: bool = False):
    torch.manual_seed(0)
    random.seed(0)
    model = build()
    family = {"sgd": torch.optim.SGD, "lbfgs": torch.optim.LBFGS}[kind]
    optimizer = family(model.parameters(), lr=0.05)
    losses, looks = [], []

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = model(inputs)
        loss = (output.logits if isinstance(output, Both) else output).float().square().mean()
        loss.backward()
        return loss

    with contextlib.nullcontext() if every is None else watch(model, optimizer, every=every, sink=looks.append) as seen:
        for _ in range(4):
            if kind == "lbfgs":
                loss = optimizer.step(closure)
            else:
                loss = closure()
                optimizer.step()
            losses.append(float(loss.detach()))
            if seen is not None:
                seen.step(loss, 8)
            if validate:
                with torch.no_grad():
                    model(inputs)
    state = [value.clone() for value in model.state_dict().values()]
    return (losses, state, torch.get_rng_state(), random.getstate()), looks, seen


def same(one, other) -> bool:
    tensors = all(torch.equal(a, b) for a, b in zip(one[1], other[1], strict=True))
    return one[0] == other[0] and tensors and torch.equal(one[2], other[2]) and one[3] == other[3]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_training_is_the_same_and_something_is_measured(name):
    build, inputs = CASES[name]
    plain, *_ = loop(build, inputs, every=None)
    watched, looks, seen = loop(build, inputs, every=2)
    assert same(plain, watched)
    assert seen.topology.layers
    assert looks[-1].metrics["gradient_norm"] > 0
    assert any(layer.HasField("gradient_norm") for layer in looks[-1].layers)


@pytest.mark.parametrize("options", [{"autocast": True}, {"kind": "lbfgs"}, {"validate": True}])
def test_odd_loops_are_the_same_too(options):
    build, inputs = CASES["batch norm"]
    plain, *_ = loop(build, inputs, every=None, **options)
    watched, looks, _ = loop(build, inputs, every=2, **options)
    assert same(plain, watched)
    assert looks[-1].layers[0].update_magnitude > 0
    assert options.get("kind") == "lbfgs" or looks[-1].activations[0].activation_frequency == 1


def test_a_layer_that_runs_twice_is_one_layer_and_one_that_never_runs_is_none():
    _, looks, seen = loop(*CASES["shared"], every=2)
    assert [layer.layer_id for layer in seen.topology.layers] == ["inner", "leave"]
    assert {(e.source, e.target) for e in seen.topology.connections} == {("inner", "inner"), ("inner", "leave")}
    assert looks[-1].connections[-1].data_flow_volume == 2 * 8 * 6 * 4


def test_tied_weights_count_once_in_the_whole_and_in_full_in_each_layer():
    _, looks, _ = loop(*CASES["tied"], every=2)
    enter, leave = looks[-1].layers
    assert enter.gradient_norm == leave.gradient_norm == pytest.approx(looks[-1].metrics["gradient_norm"])


def test_a_sparse_gradient_has_the_norm_of_its_dense_one():
    build, inputs = CASES["sparse"]
    dense = lambda: nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 2))  # noqa: E731
    norms = [loop(make, inputs, every=2)[1][-1].layers[0].gradient_norm for make in (build, dense)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


def test_a_copy_made_while_watching_is_not_watched():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, every=2) as seen:
        for _ in range(2):
            optimizer.zero_grad()
            loss = model(FLOATS).square().mean()
            loss.backward()
            optimizer.step()
            twin = copy.deepcopy(model)
            twin(FLOATS).sum().backward()
            look = seen.step(loss, 8)
    assert look.activations[0].activation_frequency == 1
