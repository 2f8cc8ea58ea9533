"""Fourteen architectures from elsewhere are watched as they are; their training stays the same bit for bit."""

import contextlib
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv

from recorder.watch import watch
from recorder.watch.observation import Observation
from recorder.watch.topology import Topology
from tests.recorder.watch.models import Unet

RING = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
IDS = torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(0))


class Graph(nn.Module):
    """Two graph convolutions on a ring."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, nodes: Tensor, edge_index: Tensor) -> Tensor:
        result: Tensor = self.second(torch.relu(self.first(nodes, edge_index)), edge_index)
        return result


class Recurrent(nn.Module):
    """Embedding, a recurrent body, logits of the last position."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.embedding, self.body, self.head = nn.Embedding(50, 8), body, nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.head(self.body(self.embedding(tokens))[0][:, -1])
        return result


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(196, 3),
    )


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def small(kind: str, **more: Any) -> dict[str, Any]:
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return size | ({"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0} if kind == "text" else {}) | more


def bert() -> nn.Module:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**small("text", num_hidden_layers=1)))


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2)
    return transformers.GPT2LMHeadModel(config)


def llama() -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**small("text")))


def vit() -> nn.Module:
    return transformers.ViTForImageClassification(transformers.ViTConfig(**small("image", image_size=16, patch_size=8)))


def resnet() -> nn.Module:
    config = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    return transformers.ResNetForImageClassification(config)


def images(channels: int = 3, size: int = 16) -> Tensor:
    return torch.randn(4, channels, size, size, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Case:
    """How to build a model, and what it is called with; `loops` where one module runs more than once a pass."""

    build: Any
    inputs: dict[str, Tensor]
    layers: int
    loops: bool = False


TEXT = {"input_ids": IDS}
NODES = {"nodes": torch.randn(6, 4, generator=torch.Generator().manual_seed(2)), "edge_index": RING}
FLAT = {"input": torch.randn(8, 6, generator=torch.Generator().manual_seed(3))}
WORDS = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(4))
CASES = {
    "mlp": Case(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 2)), FLAT, 3),
    "cnn": Case(cnn, {"input": images()}, 6),
    "unet": Case(Unet, {"images": images(1, 8)}, 4),
    "encoder": Case(encoder, {"src": WORDS}, 14),
    "translator": Case(lambda: nn.Transformer(16, 2, 1, 1, 32, batch_first=True), {"src": WORDS, "tgt": WORDS}, 19),
    "lstm": Case(lambda: Recurrent(nn.LSTM(8, 8, 2, batch_first=True, dropout=0.1)), {"tokens": IDS}, 3),
    "gru": Case(lambda: Recurrent(nn.GRU(8, 8, batch_first=True)), {"tokens": IDS}, 3),
    "bert": Case(bert, TEXT, 18),
    "gpt2": Case(gpt2, TEXT, 20),
    "llama": Case(llama, TEXT, 20),
    "vit": Case(vit, {"pixel_values": images()}, 20, loops=True),
    "resnet": Case(resnet, {"pixel_values": images(size=32)}, 18),
    "gcn": Case(lambda: Graph(GCNConv(4, 8), GCNConv(8, 2)), NODES, 4),
    "gat": Case(lambda: Graph(GATConv(4, 4, heads=2), GATConv(8, 2)), NODES, 4),
}


def train(case: Case, every: int | None) -> tuple[list[float], Tensor, list[Tensor], Topology | None, list[Observation]]:
    """Losses, random state, final weights and buffers, topology and looks of four steps; `every` None trains unwatched."""
    torch.manual_seed(0)
    model = case.build()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses, looks = [], []
    with contextlib.nullcontext() if every is None else watch(model, optimizer, every=every, sink=looks.append) as seen:
        for _ in range(4):
            optimizer.zero_grad()
            output = model(**case.inputs)
            loss = (output.logits if hasattr(output, "logits") else output).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if seen is not None:
                seen.step(loss, 4)
    state = [value.clone() for value in model.state_dict().values()]
    return losses, torch.get_rng_state(), state, seen.topology if seen is not None else None, looks


@pytest.mark.parametrize("name", CASES)
def test_it_is_watched_as_it_is_and_trains_the_same_bit_for_bit(name):
    case = CASES[name]
    plain, plain_rng, plain_state, *_ = train(case, None)
    losses, rng, state, topology, looks = train(case, 2)
    assert losses == plain
    assert torch.equal(rng, plain_rng)
    assert all(torch.equal(a, b) for a, b in zip(state, plain_state, strict=True))
    assert len(topology.layers) >= case.layers
    assert [layer.layer_id for layer in looks[-1].layers] == [layer.layer_id for layer in topology.layers]
    assert any(layer.gradient_norm > 0 and layer.weight_norm > 0 and layer.update_magnitude > 0 for layer in looks[-1].layers)
    assert len(looks[-1].connections) == len(topology.connections) > 0
    assert all(edge.data_flow_volume > 0 for edge in looks[-1].connections)


def order(topology: Topology) -> dict[str, int]:
    return {layer.layer_id: place for place, layer in enumerate(topology.layers)}


@pytest.mark.parametrize("name", CASES)
def test_connections_lead_forward_from_an_input_to_the_last_layer(name):
    case = CASES[name]
    topology = train(case, 2)[3]
    place = order(topology)
    backward = [edge for edge in topology.connections if place[edge.source] >= place[edge.target]]
    assert bool(backward) == case.loops
    reached, last = {topology.layers[-1].layer_id}, topology.layers[-1]
    for _ in topology.layers:
        reached |= {edge.source for edge in topology.connections if edge.target in reached}
    assert {layer.layer_id for layer in topology.layers} == reached
    assert last.layer_id not in {edge.source for edge in topology.connections if not case.loops}


def edges(name: str) -> set[tuple[str, str, bool]]:
    topology = train(CASES[name], 2)[3]
    return {(edge.source, edge.target, edge.residual) for edge in topology.connections}


def test_bert_by_hand():
    b, layer = "bert.embeddings", "bert.encoder.layer.0"
    attention = f"{layer}.attention"
    qkv = [f"{attention}.self.{part}" for part in ("query", "key", "value")]
    assert edges("bert") == {
        (f"{b}.word_embeddings", f"{b}.LayerNorm", False),
        (f"{b}.token_type_embeddings", f"{b}.LayerNorm", False),
        (f"{b}.position_embeddings", f"{b}.LayerNorm", False),
        (f"{b}.LayerNorm", f"{b}.dropout", False),
        *((f"{b}.dropout", part, False) for part in qkv),
        *((part, f"{attention}.output.dense", False) for part in qkv),
        (f"{attention}.output.dense", f"{attention}.output.dropout", False),
        (f"{attention}.output.dropout", f"{attention}.output.LayerNorm", False),
        (f"{b}.dropout", f"{attention}.output.LayerNorm", True),
        (f"{attention}.output.LayerNorm", f"{layer}.intermediate.dense", False),
        (f"{layer}.intermediate.dense", f"{layer}.output.dense", False),
        (f"{layer}.output.dense", f"{layer}.output.dropout", False),
        (f"{layer}.output.dropout", f"{layer}.output.LayerNorm", False),
        (f"{attention}.output.LayerNorm", f"{layer}.output.LayerNorm", True),
        (f"{layer}.output.LayerNorm", "bert.pooler.dense", False),
        ("bert.pooler.dense", "dropout", False),
        ("dropout", "classifier", False),
    }


def test_resnet_by_hand():
    first, second = (f"resnet.encoder.stages.{k}.layers.0" for k in range(2))

    def body(block: str) -> list[str]:
        parts = ("0.convolution", "0.normalization", "1.convolution", "1.normalization", "1.activation")
        return [f"{block}.layer.{part}" for part in parts]

    def chain(*layers: str) -> set[tuple[str, str, bool]]:
        return {(a, b, False) for a, b in pairwise(layers)}

    stem = ("resnet.embedder.embedder.convolution", "resnet.embedder.embedder.normalization", "resnet.embedder.pooler")
    shortcut = (f"{second}.shortcut.convolution", f"{second}.shortcut.normalization")
    assert edges("resnet") == {
        *chain(*stem, *body(first), body(second)[0]),
        *chain(*body(second), "resnet.pooler", "classifier.0", "classifier.1"),
        (stem[-1], f"{first}.shortcut", False),
        (f"{first}.shortcut", body(second)[0], True),
        (body(first)[-1], shortcut[0], False),
        (f"{first}.shortcut", shortcut[0], True),
        *chain(*shortcut),
        (shortcut[1], "resnet.pooler", True),
    }


def test_graph_convolutions_by_hand():
    assert edges("gcn") == {
        ("first.lin", "first.aggr_module", False),
        ("first.aggr_module", "second.lin", False),
        ("second.lin", "second.aggr_module", False),
    }


def test_recurrent_networks_by_hand():
    assert edges("lstm") == edges("gru") == {("embedding", "body", False), ("body", "head", False)}


if __name__ == "__main__":  # the table of docs/recorder.md
    from recorder.watch.tracing import find_topology

    for title, example in CASES.items():
        host = example.build()
        started = time.perf_counter()
        found = find_topology(host, **example.inputs)
        taken = (time.perf_counter() - started) * 1e3
        print(f"{title:10s} {len(found.layers):3d} layers {len(found.connections):3d} connections {taken:6.1f} ms")
