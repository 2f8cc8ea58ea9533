"""Topologies found by provenance, checked by hand, without disturbing the model."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GCNConv

from recorder.watch.tracing import find_topology


class Skipping(nn.Module):
    """x -> a -> relu -> h; h + tanh(b(h)) -> c."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = functional.relu(self.a(inputs))
        result: Tensor = self.c(hidden + self.b(hidden).tanh())
        return result


def edges(topology) -> set[tuple[str, str, bool]]:
    return {(edge.source, edge.target, edge.residual) for edge in topology.connections}


def test_an_mlp_is_a_chain_whose_activations_are_no_layers():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 2))
    topology = find_topology(model, torch.randn(3, 4))
    assert edges(topology) == {("0", "2", False), ("2", "4", False)}
    assert [(layer.depth, layer.activation_type) for layer in topology.layers] == [(0, "relu"), (1, "sigmoid"), (2, "none")]
    assert [(a.activation_id, a.layer_id) for a in topology.activations] == [("1", "0"), ("3", "2")]


def test_a_sum_of_two_paths_marks_the_earlier_one_as_residual():
    topology = find_topology(Skipping(), torch.randn(3, 4))
    assert edges(topology) == {("a", "b", False), ("a", "c", True), ("b", "c", False)}
    assert {a.activation_id: a.type for a in topology.activations} == {"a.relu": "relu", "b.tanh": "tanh"}


def test_a_transformer_layer_has_both_of_its_residuals():
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), num_layers=2, enable_nested_tensor=False
    )
    topology = find_topology(model, torch.randn(2, 5, 16))
    residual = {(source, target) for source, target, flag in edges(topology) if flag}
    assert residual == {
        ("layers.0.norm1", "layers.0.norm2"),
        ("layers.0.norm2", "layers.1.norm1"),
        ("layers.1.norm1", "layers.1.norm2"),
    }
    straight = {(source, target) for source, target, flag in edges(topology) if not flag}
    assert ("layers.0.linear2", "layers.0.dropout2") in straight
    assert ("layers.0.dropout2", "layers.0.norm2") in straight
    attention = next(layer for layer in topology.layers if layer.layer_id == "layers.0.self_attn")
    assert (attention.type, attention.input_channels, attention.output_channels) == ("MultiheadAttention", 16, 16)


def test_dropout_in_eval_mode_does_not_take_the_place_of_its_input():
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.drop, self.b = nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            hidden = self.a(inputs)
            result: Tensor = self.b(hidden + self.drop(hidden))
            return result

    assert edges(find_topology(Noisy(), torch.randn(2, 4))) == {
        ("a", "drop", False),
        ("a", "b", True),
        ("drop", "b", False),
    }


def test_channels_are_dimension_one_of_images_and_the_last_one_elsewhere():
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 4, 7))
    layers = {layer.layer_id: layer for layer in find_topology(model, torch.randn(2, 3, 4, 4)).layers}
    assert (layers["0"].input_channels, layers["0"].output_channels) == (3, 5)
    assert (layers["2"].input_channels, layers["2"].output_channels) == (5, 20)
    assert (layers["3"].input_channels, layers["3"].output_channels) == (20, 7)


def test_a_graph_network_is_traced_through_its_message_passing():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = GCNConv(4, 8), GCNConv(8, 2)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            result: Tensor = self.second(torch.relu(self.first(x, edge_index)), edge_index)
            return result

    topology = find_topology(Net(), torch.randn(3, 4), torch.tensor([[0, 1, 2], [1, 2, 0]]))
    names = [layer.layer_id for layer in topology.layers]
    assert names.index("first.lin") < names.index("second.lin")
    reached = {target for source, target, _ in edges(topology) if source.startswith("first")}
    assert "second.lin" in reached
    assert [a.type for a in topology.activations] == ["relu"]


def test_looking_changes_neither_statistics_nor_random_state_nor_mode():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model.train()
    model[2].eval()
    before, state = model[1].running_mean.clone(), torch.get_rng_state()
    find_topology(model, torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(before, model[1].running_mean)
    assert int(model[1].num_batches_tracked) == 0
    assert torch.equal(state, torch.get_rng_state())
    assert [module.training for module in model] == [True, True, False]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
