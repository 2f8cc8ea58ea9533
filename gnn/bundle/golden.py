"""Write and check golden outputs: two small graphs in the bundle with the model's outputs, recomputed before it serves."""

from collections.abc import Mapping

import safetensors.torch
import torch
from torch import Tensor

from gnn.bundle.layout import batch_from, batch_tensors, blank_batch, dtype_name
from gnn.graph.batch import GraphBatch, GraphStore
from gnn.graph.scale import scale
from gnn.model.network import TamiyoGNN
from gnn.model.outputs import Outputs
from schemas.artifacts import PriorNorm

GOLDEN_GRAPHS = 2
TOLERANCE = 1e-5
SEARCHED = 300  # the smallest are chosen among this many graphs


def choose(store: GraphStore) -> list[GraphBatch]:
    """Return the two smallest of the first `SEARCHED` graphs, as batches of one; graphs with seeds take precedence."""
    sizes = []
    for number in range(min(len(store), SEARCHED)):
        batch = store.batch([number])
        nodes = sum(len(x) for x in batch.x.values()) + sum(len(x) for x in batch.edge_attr.values())
        sizes.append((batch.num_nodes("seed") == 0, nodes, number))
    chosen = [store.batch([number]) for *_, number in sorted(sizes)[:GOLDEN_GRAPHS]]
    return chosen + [blank_batch()] * (GOLDEN_GRAPHS - len(chosen))


Priors = Mapping[str, PriorNorm]


def write_golden(network: TamiyoGNN, graphs: list[GraphBatch], kernels: Tensor, priors: Priors) -> bytes:
    """Return the bytes of `golden.safetensors`: the unscaled inputs and the outputs of each graph.

    `kernels` (bool [32]) are the kernels allowed at every seed.
    """
    tensors: dict[str, Tensor] = {"kernel_mask": kernels}
    for number, batch in enumerate(graphs):
        tensors |= {f"input.{number}.{name}": t for name, t in batch_tensors(batch).items()}
        tensors |= {f"output.{number}.{name}": t for name, t in answer(network, batch, kernels, priors).items()}
    return safetensors.torch.save({name: t.contiguous().clone() for name, t in tensors.items()})


@torch.no_grad()
def answer(network: TamiyoGNN, batch: GraphBatch, kernels: Tensor, priors: Priors) -> dict[str, Tensor]:
    """Return the network's outputs for an unscaled batch in which every seed is allowed the same `kernels` (bool [32])."""
    mask = kernels.unsqueeze(0).expand(batch.num_nodes("seed"), -1)
    outputs: Outputs = (network.eval() if network.training else network)(scale(batch, priors), mask)
    return outputs.tensors()


def differences(network: TamiyoGNN, golden: Mapping[str, Tensor], priors: Priors) -> dict[str, str]:
    """Return the outputs not reproduced within 1e-5 (relative above one): a message with the largest difference, by name."""
    faults: dict[str, str] = {}
    known = {"kernel_mask"}
    for number in range(GOLDEN_GRAPHS):
        prefix = f"input.{number}."
        batch = batch_from({k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}, 1)
        batch.validate()
        known |= {f"{prefix}{name}" for name in batch_tensors(batch)}
        for name, found in answer(network, batch, golden["kernel_mask"], priors).items():
            known.add(f"output.{number}.{name}")
            expected = golden[f"output.{number}.{name}"]
            if (found.shape, found.dtype) != (expected.shape, expected.dtype):
                shapes = [f"{dtype_name(t.dtype)} {list(t.shape)}" for t in (expected, found)]
                faults[f"{number}.{name}"] = f"{shapes[0]} expected, {shapes[1]} found"
                continue
            worst = float(((found - expected).abs() / expected.abs().clamp(min=1.0)).max()) if found.numel() else 0.0
            if not worst <= TOLERANCE:
                faults[f"{number}.{name}"] = f"a difference of {worst:.3g}, at most {TOLERANCE} is allowed"
    return faults | dict.fromkeys(sorted(set(golden) - known), "no such tensor expected")
