"""Small batches: the same answers as the stock twin, and never with weights that have changed since they were put in order."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.random_graphs import random_batch
from benchmarks.stock import stock_network
from gnn.graph.batch import GraphBatch
from gnn.graph.plan import ALL_TYPES
from gnn.model.kept import Keeping, Kept
from gnn.model.network import TamiyoGNN
from gnn.model.outputs import Outputs
from gnn.model.small_plan import FEW_ROWS
from schemas.configuration import ModelConfig

CONFIG = ModelConfig(hidden=16, activation_hidden=8, out=8, head_hidden=8, rank=4, members=3)
CONFIGS = [
    CONFIG,
    CONFIG.model_copy(update={"activation_hidden": 24, "heads": 3}),
    CONFIG.model_copy(update={"activation_hidden": 16, "out": 16, "sage_layers": 0, "gat_layers": 1}),
    CONFIG.model_copy(update={"out": 4, "sage_layers": 3, "heads": 8}),
    CONFIG.model_copy(update={"out": 16, "activation_hidden": 16, "gat_layers": 3}),
]
EMPTY = {"activation": 0, "parameter": 0, "blueprint": 0}
BATCHES = [
    random_batch(1),
    random_batch(3),
    random_batch(2, sizes=EMPTY),
    random_batch(1, edges=0),
    random_batch(2, sizes={"seed": 0}),
    random_batch(1, sizes={"layer": 0}),
    random_batch(2, without=("layer_connects", "seed_monitors")),
    random_batch(1, sizes={"layer": 1, "seed": 9, "context": 2}, edges=30),
]


def network_of(config: ModelConfig = CONFIG) -> TamiyoGNN:
    """A network in which no parameter is zero or one, and whose scales are fitted."""
    torch.manual_seed(0)
    network = TamiyoGNN(config).eval()
    network.fit_inputs(random_batch(4))
    for parameter in network.parameters():
        if parameter.ndim == 1 or not bool(parameter.any()):
            nn.init.normal_(parameter, 0.5, 0.5)
    return network


@torch.no_grad()
def answered(network: TamiyoGNN, batch: GraphBatch) -> Outputs:
    found: Outputs = network(replace(batch))
    assert network._kept is not None
    return found


def with_gradients(network: TamiyoGNN, batch: GraphBatch) -> Outputs:
    """The answers of the code for batches of all sizes."""
    found: Outputs = network(replace(batch))
    assert network._kept is None
    assert network.pair_head._kept is None
    return found


def assert_equal(found: Outputs, expected: Outputs) -> None:
    for (name, one), two in zip(found.tensors().items(), expected.tensors().values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=3e-6, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.filterwarnings("ignore:There exist node types")
def test_small_batches_are_answered_as_the_stock_twin_does(config: ModelConfig) -> None:
    network = network_of(config)
    twin = stock_network(network).eval()
    for batch in BATCHES:
        with torch.no_grad():
            theirs = twin(replace(batch))
        assert_equal(answered(network, batch), theirs)
        assert_equal(with_gradients(network, batch), theirs)


def test_states_are_those_of_larger_batches_for_every_type_that_is_read() -> None:
    network = network_of()
    for batch in BATCHES:
        expected = network.states(replace(batch))
        with torch.inference_mode():
            found = network.states(replace(batch))
        assert list(found) == ["layer", "seed", "blueprint", "context"]
        for name, state in found.items():
            torch.testing.assert_close(state, expected[name], rtol=1e-5, atol=2e-6)


def scaled(network: TamiyoGNN) -> None:
    with torch.no_grad():
        network.rounds[1].messages.send["layer"].mul_(1.5)


def while_inferring(network: TamiyoGNN) -> None:
    with torch.inference_mode():
        network.rounds[2].messages.notice["layer__connects__layer"].add_(1.0)


def refitted(network: TamiyoGNN) -> None:
    network.fit_inputs(random_batch(4, seed=5))


def loaded(network: TamiyoGNN) -> None:
    network.load_state_dict({name: tensor * 1.1 for name, tensor in network.state_dict().items()})


def assigned(network: TamiyoGNN) -> None:
    network.load_state_dict({name: tensor * 1.1 for name, tensor in network.state_dict().items()}, assign=True)


def replaced(network: TamiyoGNN) -> None:
    network.rounds[0].own["seed"].weight = nn.Parameter(network.rounds[0].own["seed"].weight.detach() * 2.0)


def exchanged(network: TamiyoGNN) -> None:
    network.encoders["seed"].linear = nn.Linear(network.encoders["seed"].linear.in_features, CONFIG.hidden)


def rounded(network: TamiyoGNN) -> None:
    network.bfloat16().float()


def kernels_changed(network: TamiyoGNN) -> None:
    with torch.no_grad():
        network.pair_head.free.add_(0.5)
        network.pair_head.unit.fill_(0.1)


def stepped(network: TamiyoGNN) -> None:
    """A step of a fused optimizer, which torch doesn't count as a change."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.05, fused=True)
    sum(t.square().mean() for t in with_gradients(network, random_batch(2)).tensors().values()).backward()
    optimizer.step()
    optimizer.zero_grad()


def trained(network: TamiyoGNN) -> None:
    network.train()
    stepped(network)
    network.eval()


def looked_at_between(network: TamiyoGNN) -> None:
    """A forward pass without gradients between the backward pass and the step."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.05, fused=True)
    sum(t.square().mean() for t in network(random_batch(2)).tensors().values()).backward()
    with torch.no_grad():
        network(random_batch(1))
    optimizer.step()
    optimizer.zero_grad()


def large_batch(network: TamiyoGNN) -> None:
    """A step on a batch that is not small."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.05, fused=True)
    network(random_batch(FEW_ROWS // 4)).value.sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("change", [
    scaled, while_inferring, refitted, loaded, assigned, replaced, exchanged, rounded, kernels_changed, stepped, trained,
    looked_at_between, large_batch,
], ids=lambda change: change.__name__)  # fmt: skip
def test_no_answer_comes_from_weights_that_have_changed(change: Callable[[TamiyoGNN], None]) -> None:
    network, batch = network_of(), random_batch(1)
    before = answered(network, batch)
    change(network)
    after = answered(network, batch)
    assert not torch.equal(after.seed_value, before.seed_value)
    assert_equal(after, with_gradients(network, batch))


def test_weights_are_put_in_order_once() -> None:
    network, batch = network_of(), random_batch(1)
    answered(network, batch)
    kept = network._kept, network.pair_head._kept
    answered(network, random_batch(3))
    assert (network._kept, network.pair_head._kept) == kept


def test_threads_do_not_disturb_each_other() -> None:
    network, batches = network_of(), [random_batch(1, seed=1), random_batch(12, seed=2)]
    alone = [answered(network, batch) for batch in batches]

    def repeated(place: int) -> list[Outputs]:
        with torch.inference_mode(place == 0):
            return [answered(network, batches[place]) for _ in range(30)]

    with ThreadPoolExecutor(2) as pool:
        for expected, found in zip(alone, pool.map(repeated, (0, 1)), strict=True):
            for outputs in found:
                assert torch.equal(outputs.seed_value, expected.seed_value)
                assert torch.equal(outputs.blueprint_scores, expected.blueprint_scores)


def test_a_copy_answers_with_its_own_weights() -> None:
    network, batch = network_of(), random_batch(1)
    before = answered(network, batch)
    for other in (copy.deepcopy(network), shallow(network)):
        with torch.no_grad():
            other.encoders["layer"].linear.weight.mul_(2.0)
        assert not torch.equal(answered(other, batch).seed_value, before.seed_value)
        assert torch.equal(answered(network, batch).seed_value, before.seed_value)


def shallow(network: TamiyoGNN) -> TamiyoGNN:
    """A network that took over all other attributes, as the reader of bundles makes it."""
    fresh = TamiyoGNN(network.config).eval()
    fresh.load_state_dict(network.state_dict())
    fresh._kept, fresh.pair_head._kept = network._kept, network.pair_head._kept
    return fresh


@pytest.mark.parametrize("mode", ["autocast", "training", "tracked", "large", "inference", "double", "no messages", "empty"])
def test_other_batches_take_the_way_of_all_sizes(mode: str) -> None:
    network = network_of(CONFIG.model_copy(update={"messages": mode != "no messages"}))
    sizes = dict.fromkeys(ALL_TYPES, 0) if mode == "empty" else {}
    batch: Any = random_batch(FEW_ROWS // 4 if mode == "large" else 1, sizes=sizes)
    if mode == "inference":
        with torch.inference_mode():
            network.blueprint_head.weight = nn.Parameter(network.blueprint_head.weight.clone(), requires_grad=False)
    if mode == "double":
        network.double()
        batch = replace(
            batch,
            x={k: v.double() for k, v in batch.x.items()},
            edge_attr={k: v.double() for k, v in batch.edge_attr.items()},
        )
    network.train(mode == "training")
    with torch.set_grad_enabled(mode == "tracked"), torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
        found = network(batch)
    assert network._kept is None
    assert all(bool(tensor.isfinite().all()) for tensor in found.tensors().values())


def test_what_was_planned_while_inferring_serves_training() -> None:
    network, batch = network_of(), random_batch(2)
    with torch.inference_mode():
        network(batch)
    network(batch).seed_value.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


def test_a_value_is_kept_for_its_own_module_only() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    kept = Kept(first, "of the first")
    assert kept.holds(first)
    assert not kept.holds(second)


class Doubled(Keeping):
    """Twice its only parameter, put in order beforehand if possible."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.001]))

    def forward(self) -> torch.Tensor | None:
        return self.kept(lambda: self.weight * 2.0)


@torch.no_grad()
def test_a_module_without_buffers_notices_that_its_tensors_were_moved() -> None:
    module = Doubled().eval()
    before = module()
    module.bfloat16().float()
    assert torch.equal(module(), module.weight * 2.0)
    assert not torch.equal(module(), before)
    module.bfloat16()
    assert module() is None
