"""TamiyoGNN against stock PyG as the oracle, and its promises on masks, gradients, empty types and batches."""

from dataclasses import replace

import pytest
import torch

from benchmarks.random_graphs import SIZES, random_batch
from benchmarks.stock import StockMessages, stock_network
from gnn.graph.batch import GraphBatch
from gnn.graph.plan import ALL_TYPES
from gnn.model.kernel_vectors import kernel_descriptors
from gnn.model.layers import Described, Messages, RoundShape, gat_round, own_round, sage_round
from gnn.model.network import READ_BY_HEADS, TamiyoGNN
from gnn.model.outputs import OUTPUT_SHAPES
from gnn.model.readout import MASKED_LOGIT
from gnn.model.states import States
from schemas.configuration import ModelConfig
from schemas.features import NODE_TYPES, RELATIONS, Relation
from tests.gnn.model.store import join

SMALL = ModelConfig(hidden=16, activation_hidden=8, out=8, head_hidden=8, rank=4, members=3, dropout=0.0)
EMPTY = {"activation": 0, "parameter": 0, "blueprint": 0}


ROWS_OF_LOT = (1, 1 << 20)  # each direction by itself, and all together


def messages_of(kind: str, shape: RoundShape) -> Messages:
    messages = (sage_round(shape) if kind == "sage" else gat_round(shape, heads=4)).messages
    assert messages is not None
    return messages


def sent(
    messages: Messages,
    state: dict[str, torch.Tensor],
    batch: GraphBatch,
    attributes: dict[tuple[str, str, str], torch.Tensor],
    rows_of_lot: int,
) -> dict[str, torch.Tensor]:
    """What `messages` add to zeros."""
    batch.plan(messages.directions, rows_of_lot=rows_of_lot)
    totals = {name: torch.zeros(len(state[name]), messages.out) for name in messages.directions.receivers}
    messages(States(state), batch, Described.of(batch, attributes), totals)
    return totals


def small(seed: int = 0, **change: object) -> TamiyoGNN:
    torch.manual_seed(seed)
    return TamiyoGNN(SMALL.model_copy(update=change)).eval()


def states(batch: GraphBatch, width: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {n.name: torch.randn(batch.num_nodes(n.name), width, requires_grad=True) for n in NODE_TYPES}


def attributes_of(batch: GraphBatch, width: int) -> dict[tuple[str, str, str], torch.Tensor]:
    torch.manual_seed(4)
    return {t: torch.randn(attr.shape[0], width, requires_grad=True) for t, attr in batch.edge_attr.items()}


@pytest.mark.parametrize("receivers", [ALL_TYPES, READ_BY_HEADS])
@pytest.mark.parametrize("kind", ["sage", "gat"])
@pytest.mark.parametrize("batch", [
    random_batch(3), random_batch(2, without=("layer_connects", "seed_monitors")), random_batch(2, sizes=EMPTY),
    random_batch(2, sizes={"layer": 1, "seed": 9}), random_batch(1, edges=0),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:There exist node types")
def test_messages_are_those_of_stock_hetero_conv(kind: str, batch: GraphBatch, receivers: tuple[str, ...]) -> None:
    torch.manual_seed(1)
    shape = RoundShape(dict.fromkeys(ALL_TYPES, 6), {r.triple: 4 for r in RELATIONS}, 5, 0.0, receivers)
    ours = messages_of(kind, shape)
    stock = StockMessages(ours, shape.widths, shape.edge_widths)
    state, attributes = states(batch, 6), attributes_of(batch, 4)
    targets = {name: torch.randn(batch.num_nodes(name), 5) for name in receivers}

    def gradients(found: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        inputs = [*state.values(), *attributes.values()]
        loss = sum((found[name] * targets[name]).sum() for name in receivers) + sum(0 * t.sum() for t in inputs)
        return list(torch.autograd.grad(loss, inputs, retain_graph=True))

    zeros = {name: torch.zeros_like(target) for name, target in targets.items()}
    expected = zeros | stock(state, batch, attributes)
    for rows_of_lot in ROWS_OF_LOT:
        found = sent(ours, state, replace(batch), attributes, rows_of_lot)
        for name in receivers:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)
        for gradient, theirs in zip(gradients(found), gradients(expected), strict=True):
            torch.testing.assert_close(gradient, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["sage", "gat"])
def test_every_parameter_gets_the_same_gradient_however_directions_are_summed(kind: str) -> None:
    torch.manual_seed(1)
    batch = random_batch(3)
    messages = messages_of(kind, RoundShape(dict.fromkeys(ALL_TYPES, 6), {r.triple: 4 for r in RELATIONS}, 5, 0.0))
    state, attributes = states(batch, 6), attributes_of(batch, 4)
    found = []
    for rows_of_lot in ROWS_OF_LOT:
        answers = sent(messages, state, replace(batch), attributes, rows_of_lot)
        loss = sum(tensor.square().sum() for tensor in answers.values())
        found.append(torch.autograd.grad(loss, [*messages.parameters()]))
    for together, alone in zip(*found, strict=True):
        assert bool(together.abs().max() > 0)
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:There exist node types")
@pytest.mark.parametrize("pruned", [False, True])
def test_the_whole_network_answers_as_its_stock_twin_does(*, pruned: bool) -> None:
    ours = small()
    twin = stock_network(ours, pruned=pruned).eval()
    for batch in (random_batch(3), random_batch(2, sizes=EMPTY)):
        theirs = twin(batch).tensors()
        for name, tensor in ours(batch).tensors().items():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [{}, EMPTY, {"seed": 0}, {"layer": 0, "seed": 0, **EMPTY}])
def test_every_output_has_its_published_shape_and_is_finite(sizes: dict[str, int]) -> None:
    batch = random_batch(3, sizes=sizes)
    config = SMALL.model_copy(update={"telemetry_embedding": 64, "compile_embedding": 16})
    found = TamiyoGNN(config).eval()(batch).tensors()
    counts = {"G": 3, "S": batch.num_nodes("seed"), "B": batch.num_nodes("blueprint")}
    assert list(found) == list(OUTPUT_SHAPES)
    for name, shape in OUTPUT_SHAPES.items():
        assert found[name].shape == tuple(counts.get(d, d) for d in shape), name
        assert bool(found[name].isfinite().all()), name


def test_dimensions_are_known_without_a_forward_pass() -> None:
    assert not any(isinstance(p, torch.nn.UninitializedParameter) for p in TamiyoGNN(ModelConfig()).parameters())


def test_a_masked_kernel_gets_no_weight_and_the_rest_share_it_all() -> None:
    batch = random_batch(2)
    mask = torch.zeros(batch.num_nodes("seed"), 32, dtype=torch.bool)
    mask[:, [3, 5]] = True
    mask[0] = False
    found = small()(batch, mask)
    shares = torch.softmax(found.policy_logits, dim=1)
    assert bool((found.seed_policy_logits[~mask] == MASKED_LOGIT).all())
    assert bool((found.policy_logits[:, [k for k in range(32) if k not in (3, 5)]] == MASKED_LOGIT).all())
    torch.testing.assert_close(shares[:, [3, 5]].sum(1), torch.ones(2))


def test_a_mask_changes_nothing_but_the_choice() -> None:
    batch = random_batch(2)
    mask = torch.rand(batch.num_nodes("seed"), 32) > 0.5
    free, bound = small()(batch), small()(batch, mask)
    assert torch.equal(free.seed_value, bound.seed_value)
    assert torch.equal(free.seed_policy_logits[mask], bound.seed_policy_logits[mask])


def test_with_every_kernel_masked_the_answers_stay_finite() -> None:
    batch = random_batch(2)
    found = small()(batch, torch.zeros(batch.num_nodes("seed"), 32, dtype=torch.bool))
    assert bool((found.policy_logits == MASKED_LOGIT).all())
    assert all(bool(t.isfinite().all()) for t in found.tensors().values())


def test_graph_answers_are_expectations_over_pairs() -> None:
    batch = random_batch(1)
    found = small()(batch)
    joint = (found.seed_scores.unsqueeze(1) + found.seed_policy_logits).flatten()
    shares = torch.softmax(joint, 0)
    torch.testing.assert_close(found.value[0, 0], (shares * found.seed_value.flatten()).sum())
    risk = (shares.view(-1, 32, 1) * torch.softmax(found.seed_risk_logits, 2)).sum((0, 1))
    torch.testing.assert_close(torch.softmax(found.risk_logits[0], 0), risk)
    torch.testing.assert_close(found.policy_logits[0], torch.logsumexp(joint.view(-1, 32), 0))


def test_a_graph_answers_the_same_alone_and_in_company() -> None:
    graphs = [
        random_batch(1, seed=1),
        random_batch(1, seed=2, sizes=EMPTY),
        random_batch(1, seed=3, without=("layer_connects",)),
    ]
    network = small()
    together = network(join(graphs))
    seed = 0
    for place, graph in enumerate(graphs):
        alone = network(graph)
        torch.testing.assert_close(alone.policy_logits[0], together.policy_logits[place], rtol=1e-5, atol=1e-6)
        rows = slice(seed, seed + SIZES["seed"])
        torch.testing.assert_close(alone.seed_value, together.seed_value[rows], rtol=1e-5, atol=1e-6)
        seed += SIZES["seed"]


def test_a_node_without_messages_keeps_its_own_path() -> None:
    batch = random_batch(1, edges=0)
    shape = RoundShape(dict.fromkeys(ALL_TYPES, 6), {r.triple: 4 for r in RELATIONS}, 6, 0.0)
    torch.manual_seed(5)
    silent, talking = own_round(shape), sage_round(shape)
    silent.load_state_dict(talking.state_dict(), strict=False)
    state, attributes = states(batch, 6), attributes_of(batch, 4)
    talked = talking(States(state), batch, Described.of(batch, attributes))
    for name, value in silent(States(state), batch, None).items():
        assert torch.equal(value, talked[name])


def test_gradients_reach_every_parameter_that_the_graphs_touch() -> None:
    batch = random_batch(4, edges=12)
    network = TamiyoGNN(SMALL)
    found = network(batch).tensors()
    sum(t.square().sum() for t in found.values()).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None]
    assert silent == [], silent


@pytest.mark.parametrize("relation", [r for r in RELATIONS if r.width], ids=lambda r: r.short)
def test_the_attributes_of_every_relation_reach_the_answers(relation: Relation) -> None:
    batch, network = random_batch(2), small()
    before = network(batch).seed_value
    batch.edge_attr[relation.triple].copy_(torch.randn(batch.edge_attr[relation.triple].shape))
    moved = (network(batch).seed_value - before).std() / before.std()
    assert float(moved) > 1e-3


def test_what_a_parameter_targets_is_learned_from_what_seeds_answer() -> None:
    network = small()
    network(random_batch(4, edges=12)).seed_value.square().sum().backward()
    table = network.edges["parameter__targets__blueprint"].tables["target"]
    assert float(table.weight.grad.abs().max()) > 0


def test_edges_matter() -> None:
    batch, network = random_batch(2), small()
    other = replace(
        batch, edge_index=batch.edge_index | {("layer", "connects", "layer"): torch.zeros(2, 12, dtype=torch.int64)}
    )
    assert not torch.equal(network(batch).seed_value, network(other).seed_value)


def test_the_network_answers_as_the_mean_of_its_members() -> None:
    batch, network = random_batch(2), small()
    found, members = network(batch), network.pair_head(network.read(batch).seeds)
    each = [members.member(number) for number in range(SMALL.members)]
    torch.testing.assert_close(found.seed_policy_logits, torch.stack([m.logits for m in each]).mean(0))
    torch.testing.assert_close(found.seed_scores, torch.stack([m.scores for m in each]).mean(0))
    torch.testing.assert_close(found.seed_value, torch.stack([m.value for m in each]).mean(0))
    shares = torch.stack([torch.softmax(m.risk, -1) for m in each]).mean(0)
    torch.testing.assert_close(torch.softmax(found.seed_risk_logits, -1), shares)
    second = torch.stack([m.log_var.exp() + m.value**2 for m in each]).mean(0)
    torch.testing.assert_close(found.seed_value_log_var.exp(), second - found.seed_value**2, rtol=1e-4, atol=1e-6)
    assert not torch.equal(each[0].value, each[1].value)


def test_kernels_are_columns_that_may_change_places() -> None:
    batch, network, other = random_batch(2), small(), small()
    for one in (network, other):
        one.pair_head.descriptors.copy_(kernel_descriptors())
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name in ("free", "bias"):
            getattr(other.pair_head, name).copy_(getattr(network.pair_head, name)[:, order])
        other.pair_head.descriptors.copy_(network.pair_head.descriptors[order])
    before, after = network(batch), other(batch)
    for name in ("seed_policy_logits", "seed_value", "seed_value_log_var", "seed_risk_logits", "policy_logits"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name)[:, order], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after.value, before.value)


def test_the_default_network_is_small() -> None:
    state = TamiyoGNN(ModelConfig()).state_dict()
    assert sum(tensor.numel() * tensor.element_size() for tensor in state.values()) < 4 << 20


def test_a_graph_without_a_choice_is_answered_by_the_no_op() -> None:
    found = small()(random_batch(2, sizes={"seed": 0}))
    assert torch.equal(found.value, torch.zeros(2, 1))
    assert torch.softmax(found.risk_logits, 1)[:, 0].tolist() == [1.0, 1.0]
    assert bool((found.policy_logits == MASKED_LOGIT).all())


def test_without_messages_other_nodes_do_not_matter() -> None:
    batch = random_batch(1)
    network = small(messages=False)
    before = network(batch).seed_value
    batch.x["activation"].add_(1.0)
    assert torch.equal(before, network(batch).seed_value)
