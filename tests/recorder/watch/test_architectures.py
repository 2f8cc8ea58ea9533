"""Fourteen architectures, none of them changed for it, are watched while they train; topology and numbers come out."""

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv

from recorder.data import DATA_SETS
from recorder.hosts import ARCHITECTURES, HELD, build_host, draw_host, fits
from recorder.watch import watch
from tests.recorder.watch.models import Unet

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])


class OnGraph(nn.Module):
    """Two graph convolutions of one kind on a ring of six nodes."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, nodes: Tensor) -> Tensor:
        result: Tensor = self.second(torch.relu(self.first(nodes, EDGES)), EDGES)
        return result


class Translator(nn.Module):
    """torch's whole encoder-decoder transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Transformer(16, 2, 1, 1, 32, dropout=0.0, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.body(inputs, inputs)
        return result


class Bilinear(nn.Module):
    """Two towers and a bilinear layer; the way through depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.both = nn.Linear(8, 6), nn.Linear(8, 6), nn.Bilinear(6, 6, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        left = torch.tanh(self.left(inputs))
        right = torch.sigmoid(self.right(inputs)) if inputs.sum() > -1e9 else left
        result: Tensor = self.both(left, right)
        return result


class Autoencoder(nn.Module):
    """Tied ends: the decoder uses the encoder's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.act = nn.Linear(8, 4), nn.GELU()

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.linear(self.act(self.encode(inputs)), self.encode.weight.T)


def lstm() -> nn.Module:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.cell, self.head = nn.Embedding(9, 8), nn.LSTM(8, 8, num_layers=2), nn.Linear(8, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            result: Tensor = self.head(self.cell(self.embedding(tokens))[0][-1])
            return result

    return Last()


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def gin() -> nn.Module:
    def tower(width: int) -> nn.Module:
        return GINConv(nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 8)))

    return OnGraph(tower(4), tower(8))


NODES = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
OTHERS = {
    "gcn": (lambda: OnGraph(GCNConv(4, 8), GCNConv(8, 2)), NODES, 2),
    "gat": (lambda: OnGraph(GATConv(4, 4, heads=2), GATConv(8, 2)), NODES, 2),
    "sage": (lambda: OnGraph(SAGEConv(4, 8), SAGEConv(8, 2)), NODES, 4),
    "gin": (gin, NODES, 4),
    "unet": (Unet, torch.randn(3, 1, 8, 8), 4),
    "encoder": (encoder, torch.randn(3, 5, 16), 14),
    "translator": (Translator, torch.randn(3, 5, 16), 10),
    "lstm": (lstm, torch.randint(0, 9, (5, 3)), 3),
    "bilinear": (Bilinear, torch.randn(3, 8), 3),
    "autoencoder": (Autoencoder, torch.randn(3, 8), 1),
}


def train(model: nn.Module, inputs: Tensor):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    look = None
    with watch(model, optimizer, every=2) as seen:
        for _ in range(4):
            optimizer.zero_grad()
            loss = model(inputs).square().mean()
            loss.backward()
            optimizer.step()
            look = seen.step(loss, len(inputs)) or look
    return seen.topology, look


@pytest.mark.parametrize("name", OTHERS)
def test_a_foreign_architecture_is_watched_as_it_is(name):
    torch.manual_seed(0)
    build, inputs, least = OTHERS[name]
    topology, look = train(build(), inputs)
    assert len(topology.layers) >= least
    assert {layer.layer_id for layer in look.layers} == {layer.layer_id for layer in topology.layers}
    known = {layer.layer_id for layer in topology.layers}
    assert {edge.source for edge in topology.connections} | {edge.target for edge in topology.connections} <= known
    assert {a.activation_id for a in look.activations} <= {a.activation_id for a in topology.activations}
    assert any(layer.HasField("gradient_norm") for layer in look.layers)


def test_a_concatenation_is_no_residual():
    topology, _ = train(Unet(), torch.randn(3, 1, 8, 8))
    assert not any(edge.residual for edge in topology.connections)


PAIRS = [(kind, data) for kind, data in zip(ARCHITECTURES, ("digits", "photographs", "digits", "topics", "names"), strict=True)]


@pytest.mark.parametrize(("kind", "data"), PAIRS)
def test_every_host_architecture_has_layers_activations_parameters_and_sites(kind, data):
    assert fits(kind, data)
    host = build_host(draw_host(5, 1, data, kind, stress=False))
    topology, look = train(host.model, host.share.train.inputs[:8])
    assert topology.layers
    assert topology.activations
    assert look.activations
    for site in host.sites:
        assert any(layer.layer_id == site or layer.layer_id.startswith(f"{site}.") for layer in topology.layers)
    assert [group["name"] for group in host.optimizer.param_groups] == ["weight", "bias", "head"]


@pytest.mark.parametrize("name", [name for name in DATA_SETS if name != "mnist"])
def test_a_data_set_has_what_it_says_and_shares_do_not_overlap(name):
    data = DATA_SETS[name]
    examples = data.load()
    assert int(examples.targets.min()) >= 0
    assert int(examples.targets.max()) == data.classes - 1
    if data.vocabulary:
        assert int(examples.inputs.max()) < data.vocabulary
    host = build_host(draw_host(5, 2, name, "mlp", stress=False))
    assert len(host.share.validation) == len(host.share.test) == HELD
    assert len(host.share.train) == host.spec.samples
