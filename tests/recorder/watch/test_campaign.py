"""Architectures of four public libraries are saved, loaded, copied, exported and compiled at every step of 30 while they are
watched: no call raises, what comes out computes what the model does, and every loss is that of the unwatched run, bit for bit.

The short form takes one architecture a library that is quick to import, and one of the five actions a step in turn; `make soak`
takes all of them, and all actions in each step (CAMPAIGN_EXPORTS=10 exports in every tenth only).
"""

import contextlib
import copy
import io
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch_geometric.nn import models as graphs

from recorder import Observation, WatchWarning
from recorder.watch import watch
from recorder.watch.tensors import tensors_of
from recorder.watch.tracing import undisturbed
from tests.recorder.watch.test_foreign import IDS, RING, Recurrent, images, small

STEPS = 30
EXPORTS = int(os.environ.get("CAMPAIGN_EXPORTS", "1"))
Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """How to build a model from its library's own configuration, and what it is called with."""

    library: str
    build: Callable[[], nn.Module]
    inputs: Inputs


def text(model: str, config: str, **more: Any) -> Architecture:
    def build() -> nn.Module:
        return getattr(transformers, model)(getattr(transformers, config)(**small("text", **more), use_cache=False))

    return Architecture("transformers", build, {"input_ids": IDS})


def t5() -> nn.Module:
    sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0, use_cache=False))


def gpt2() -> nn.Module:
    sizes = {"vocab_size": 50, "n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, use_cache=False))


def vit() -> nn.Module:
    return transformers.ViTForImageClassification(transformers.ViTConfig(**small("image", image_size=16, patch_size=8)))


def convnext() -> nn.Module:
    config = transformers.ConvNextConfig(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2, patch_size=2)
    return transformers.ConvNextForImageClassification(config)


def resnet() -> nn.Module:
    config = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    return transformers.ResNetForImageClassification(config)


def graph(kind: str, **more: Any) -> Architecture:
    inputs = {"x": torch.randn(6, 4, generator=torch.Generator().manual_seed(2)), "edge_index": RING}
    return Architecture("torch_geometric", lambda: getattr(graphs, kind)(4, 8, 2, 2, dropout=0.1, **more), inputs)


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2, enable_nested_tensor=False)


def translator() -> nn.Module:
    return nn.Transformer(16, 2, 1, 1, 32, batch_first=True)


def medical(kind: str, *sizes: Any, width: int = 16, **more: Any) -> Architecture:
    def build() -> nn.Module:
        nets = pytest.importorskip("monai.networks.nets")
        return getattr(nets, kind)(*sizes, **more)

    return Architecture("monai", build, {"x": images(1, width)})


WORDS = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(4))
ARCHITECTURES = {
    "bert": text("BertForSequenceClassification", "BertConfig", num_hidden_layers=1),
    "gpt2": Architecture("transformers", gpt2, {"input_ids": IDS}),
    "llama": text("LlamaForCausalLM", "LlamaConfig", num_hidden_layers=1),
    "mixtral": text("MixtralForCausalLM", "MixtralConfig", num_hidden_layers=1, num_local_experts=3, num_key_value_heads=2),
    "t5": Architecture("transformers", t5, {"input_ids": IDS, "decoder_input_ids": IDS}),
    "vit": Architecture("transformers", vit, {"pixel_values": images()}),
    "convnext": Architecture("transformers", convnext, {"pixel_values": images()}),
    "resnet": Architecture("transformers", resnet, {"pixel_values": images()}),
    "encoder": Architecture("torch", encoder, {"src": WORDS}),
    "translator": Architecture("torch", translator, {"src": WORDS, "tgt": WORDS}),
    "lstm": Architecture("torch", lambda: Recurrent(nn.LSTM(8, 8, 2, batch_first=True, dropout=0.1)), {"tokens": IDS}),
    "gru": Architecture("torch", lambda: Recurrent(nn.GRU(8, 8, batch_first=True)), {"tokens": IDS}),
    "gcn": graph("GCN"),
    "gat": graph("GAT", heads=2),
    "sage": graph("GraphSAGE", norm="batch_norm"),
    "gin": graph("GIN"),
    "edge cnn": graph("EdgeCNN", act="elu"),
    "unet": medical("UNet", 2, 1, 2, channels=(4, 8, 16), strides=(2, 2), num_res_units=1),
    "segresnet": medical("SegResNet", spatial_dims=2, init_filters=8, blocks_down=(1, 1), blocks_up=(1,)),
    "densenet": medical("DenseNet", 2, 1, 2, init_features=8, growth_rate=4, block_config=(2, 2), width=32),
    "attention unet": medical("AttentionUnet", 2, 1, 2, channels=(4, 8), strides=(2,)),
    "autoencoder": medical("AutoEncoder", 2, 1, 1, channels=(4, 8), strides=(2, 2)),
    "seresnet": medical("ResNet", "basic", [1] * 4, [4, 8, 8, 8], spatial_dims=2, n_input_channels=1, num_classes=2, width=32),
}
SHORT = ("mixtral", "encoder", "sage")
COMPILED: list[Any] = []


def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
    """Runs what Dynamo captured as it is, and counts it."""
    COMPILED.append(graph)
    return graph.forward


def saved(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def loaded(model: nn.Module, _: Inputs) -> nn.Module:
    model.load_state_dict(saved(model.state_dict()))
    return model


ACTIONS: dict[str, Callable[[nn.Module, Inputs], Callable[..., Any]]] = {
    "save": lambda model, _: saved(model),
    "load": loaded,
    "copy": lambda model, _: copy.deepcopy(model),
    "export": lambda model, inputs: torch.export.export(model, (), inputs).module(),
    "compile": lambda model, _: torch.compile(model, backend=backend),
}


def first(output: Any) -> Tensor:
    return next(tensors_of(output))


def act(model: nn.Module, inputs: Inputs, names: list[str]) -> None:
    """Do what is named, and compare what came out with the model; nothing of it shows in the training."""
    with undisturbed(model), torch.no_grad():
        right = first(model(**inputs))
        for name in names:
            made = ACTIONS[name](model, inputs)
            found = first(made(**inputs))
            fused = name in ("export", "compile")  # may take other kernels than the model itself
            assert torch.allclose(found, right, atol=1e-5) if fused else torch.equal(found, right), name


def train(architecture: Architecture, plan: Callable[[int], list[str]], every: int | None) -> tuple[Any, list[Observation]]:
    """Losses, weights and random state of 30 steps, and the looks."""
    torch.manual_seed(0)
    model, looks, losses = architecture.build().train(), [], []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    context = contextlib.nullcontext() if every is None else watch(model, optimizer, every=every, sink=looks.append)
    with context as seen:
        for step in range(1, STEPS + 1):
            moments = plan(step)
            later = [] if step % 2 else [name for name in moments if name != "load"]  # autograd forbids that before backward
            act(model, architecture.inputs, [name for name in moments if name not in later])
            optimizer.zero_grad()
            loss = first(model(**architecture.inputs)).float().square().mean()
            act(model, architecture.inputs, later)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if seen is not None:
                seen.step(loss, 4)
    return (losses, [p.detach().clone() for p in model.parameters()], torch.get_rng_state()), looks


def check(name: str, plan: Callable[[int], list[str]]) -> None:
    architecture = ARCHITECTURES[name]
    runs, compilations = [], []
    for every in (None, 3):
        torch._dynamo.reset()
        COMPILED.clear()
        kept = (lambda step: [action for action in plan(step) if action == "compile"]) if every is None else plan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", WatchWarning)
            runs.append(train(architecture, kept, every))
        compilations.append(len(COMPILED))
    (plain, _), (watched, looks) = runs
    assert plain[0] == watched[0]
    assert all(torch.equal(a, b) for a, b in zip([*plain[1], plain[2]], [*watched[1], watched[2]], strict=True))
    assert len(looks) == STEPS // 3
    assert all(any(layer.HasField("gradient_norm") for layer in look.layers) for look in looks)
    assert len({len(look.layers) for look in looks}) == 1
    assert compilations[0] == compilations[1]


@pytest.mark.parametrize("name", SHORT)
def test_a_few_architectures_through_one_action_a_step(name):
    actions = list(ACTIONS)
    check(name, lambda step: [actions[step % len(actions)]])


@pytest.mark.soak
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_through_every_action_in_every_step(name):
    check(name, lambda step: [action for action in ACTIONS if action != "export" or step % EXPORTS == 0])


def test_the_campaign_is_of_twenty_architectures_of_four_libraries():
    assert len(ARCHITECTURES) >= 20
    assert len({architecture.library for architecture in ARCHITECTURES.values()}) >= 4
