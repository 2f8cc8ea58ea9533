"""TamiyoGNN against stock PyG as the oracle, and its promises on masks, gradients, empty types and batches."""

import pytest
import torch
from torch_geometric.nn import GATConv, HeteroConv, SAGEConv

from gnn.graph.batch import GraphBatch
from gnn.model.layers import ALL_TYPES, MessageRound, RoundShape, directions, gat_round, own_round, parameter_key, sage_round
from gnn.model.network import TamiyoGNN
from gnn.model.outputs import OUTPUT_SHAPES
from gnn.model.readout import MASKED_LOGIT
from schemas.configuration import ModelConfig
from schemas.features import NODE_TYPES, RELATIONS
from tests.gnn.model.graphs import SIZES, random_batch
from tests.gnn.model.store import join

SMALL = ModelConfig(hidden=16, activation_hidden=8, out=8, head_hidden=8, dropout=0.0)
EMPTY = {"activation": 0, "parameter": 0, "blueprint": 0}


def small(seed: int = 0, **change: object) -> TamiyoGNN:
    torch.manual_seed(seed)
    return TamiyoGNN(SMALL.model_copy(update=change)).eval()


def stock(round_: MessageRound, state: dict[str, torch.Tensor], batch: GraphBatch, attributes: dict) -> dict[str, torch.Tensor]:
    """What PyG's HeteroConv(mean) sends, with the same parameters in stock layers."""
    convs = {}
    for triple in directions():
        mine = round_.convs[parameter_key(triple)]
        if isinstance(mine, GATConv):
            theirs = GATConv(mine.in_channels, mine.out_channels, heads=mine.heads, concat=False, add_self_loops=False,
                             edge_dim=mine.edge_dim, bias=False)  # fmt: skip
        else:
            theirs = SAGEConv(mine.in_channels, mine.out_channels, aggr="mean", root_weight=False, bias=False)
        theirs.load_state_dict(mine.state_dict())
        convs[triple] = theirs
    edges, attrs = {}, {}
    for r in RELATIONS:
        for triple, index in ((r.triple, batch.edge_index[r.triple]), (r.reverse, batch.edge_index[r.triple].flip(0))):
            edges[triple] = index
            if attributes:
                attrs[triple] = attributes[r.triple]
    extra = {"edge_attr_dict": attrs} if attributes else {}
    return HeteroConv(convs, aggr="mean")(state, edges, **extra)


def states(batch: GraphBatch, width: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {n.name: torch.randn(batch.num_nodes(n.name), width, requires_grad=True) for n in NODE_TYPES}


@pytest.mark.parametrize("kind", ["sage", "gat"])
@pytest.mark.parametrize("batch", [
    random_batch(3), random_batch(2, without=("layer_connects", "seed_monitors")), random_batch(2, sizes=EMPTY),
    random_batch(2, sizes={"layer": 1, "seed": 9}),
])  # fmt: skip
def test_a_round_sends_what_stock_hetero_conv_sends(kind: str, batch: GraphBatch) -> None:
    torch.manual_seed(1)
    shape = RoundShape(dict.fromkeys(ALL_TYPES, 6), 5, 0.0)
    widths = {r.triple: 4 for r in RELATIONS}
    round_ = sage_round(shape) if kind == "sage" else gat_round(shape, heads=4, edge_widths=widths)
    attributes = {r.triple: torch.randn(batch.edge_attr[r.triple].shape[0], 4) for r in RELATIONS} if kind == "gat" else {}
    state = states(batch, 6)
    expected = stock(round_, state, batch, attributes)
    for name in ALL_TYPES:
        sent = [round_.message(t, state, batch, attributes) for t in round_.incoming[name] if batch_edges(batch, t)]
        total = torch.stack(sent).sum(0) / len(round_.incoming[name]) if sent else torch.zeros(batch.num_nodes(name), 5)
        torch.testing.assert_close(total, expected[name], rtol=1e-5, atol=1e-6)
    loss = sum(round_(state, batch, attributes)[name].square().sum() for name in ALL_TYPES)
    grads = torch.autograd.grad(loss, list(state.values()), allow_unused=False)
    assert all(bool(g.isfinite().all()) for g in grads)


def batch_edges(batch: GraphBatch, triple: tuple[str, str, str]) -> int:
    source, name, target = triple
    forward = (target, name.removeprefix("rev_"), source) if name.startswith("rev_") else triple
    return batch.edge_index[forward].shape[1]


@pytest.mark.parametrize("rows", [(7, 3), (3, 7)])
def test_folded_attention_has_the_gradients_of_the_stock_layer(rows: tuple[int, int]) -> None:
    torch.manual_seed(0)
    shape = RoundShape(dict.fromkeys(ALL_TYPES, 6), 5, 0.0)
    round_ = gat_round(shape, heads=4, edge_widths={r.triple: 3 for r in RELATIONS})
    mine = round_.convs["layer__activates__activation"]
    theirs = GATConv((6, 6), 5, heads=4, concat=False, add_self_loops=False, edge_dim=3, bias=False)
    theirs.load_state_dict(mine.state_dict())
    pair = tuple(torch.randn(n, 6, requires_grad=True) for n in rows)
    edges = torch.stack([torch.randint(0, n, (11,)) for n in rows])
    attr = torch.randn(11, 3, requires_grad=True)
    target = torch.randn(rows[1], 5)
    ours = torch.autograd.grad((mine(pair, edges, attr) * target).sum(), [*pair, attr, *mine.parameters()])
    stocks = torch.autograd.grad((theirs(pair, edges, edge_attr=attr) * target).sum(), [*pair, attr, *theirs.parameters()])
    for a, b in zip(ours, stocks, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


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
    silent, talking = own_round(RoundShape(dict.fromkeys(ALL_TYPES, 6), 6, 0.0)), None
    torch.manual_seed(5)
    talking = sage_round(RoundShape(dict.fromkeys(ALL_TYPES, 6), 6, 0.0))
    silent.load_state_dict(talking.state_dict(), strict=False)
    state = states(batch, 6)
    for name, value in silent(state, batch, {}).items():
        assert torch.equal(value, talking(state, batch, {})[name])


def test_gradients_reach_every_parameter_that_the_graphs_touch() -> None:
    batch = random_batch(4, edges=12)
    network = TamiyoGNN(SMALL)
    found = network(batch).tensors()
    sum(t.square().sum() for t in found.values()).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None]
    assert silent == [], silent


def test_edges_matter_and_their_attributes_too() -> None:
    batch = random_batch(2)
    network = small()
    before = network(batch).seed_value
    triple = ("seed", "monitors", "layer")
    batch.edge_attr[triple].add_(1.0)
    assert not torch.equal(before, network(batch).seed_value)
    assert small(messages=False)(batch).seed_value.shape == before.shape


def test_without_messages_other_nodes_do_not_matter() -> None:
    batch = random_batch(1)
    network = small(messages=False)
    before = network(batch).seed_value
    batch.x["activation"].add_(1.0)
    assert torch.equal(before, network(batch).seed_value)
