"""Build hosts: real networks of varied shape and training, each from its specification alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn

from recorder.data import DATA_SETS, DataSet, Kind, Share, share_of
from recorder.hosts.feedforward import CNN, MLP, Residual
from recorder.hosts.sequences import Recurrent, Transformer
from recorder.hosts.spec import HostSpec, draw_host

__all__ = ["ARCHITECTURES", "Host", "HostSpec", "build_host", "draw_host", "fits", "has_positions", "make_optimizer"]

HELD: Final = 200  # validation and test examples of a host


class Network(Protocol):
    """A host's network: a module that names the blocks after which kernels can be grafted."""

    def sites(self) -> tuple[str, ...]:
        """Return module paths of candidate sites."""
        ...


@dataclass(frozen=True)
class Host:
    """A host ready to train: its specification, network, optimizer with named groups, and share of the data."""

    spec: HostSpec
    model: nn.Module
    optimizer: torch.optim.Optimizer
    share: Share
    sites: tuple[str, ...]


def has_positions(architecture: str, data_set: str) -> bool:
    """Return whether the architecture's sites have positions (sequences or images), so that spatial kernels fit."""
    image = DATA_SETS[data_set].kind is Kind.IMAGE
    return architecture in ("cnn", "transformer", "recurrent") or (architecture == "residual" and image)


def _seeds(spec: HostSpec) -> torch.Generator:
    return torch.Generator().manual_seed(spec.seed * 1_000_003 + spec.index)


def parameter_groups(model: nn.Module, spec: HostSpec) -> list[dict[str, Any]]:
    """Return named groups: `weight` (matrices, decayed), `bias` (vectors) and `head` (the last layer)."""
    head = {id(p) for name, p in model.named_parameters() if name.startswith("head.")}
    body = [p for p in model.parameters() if id(p) not in head]
    groups = (
        ("weight", [p for p in body if p.ndim > 1], spec.weight_decay),
        ("bias", [p for p in body if p.ndim <= 1], 0.0),
        ("head", [p for p in model.parameters() if id(p) in head], spec.weight_decay),
    )
    return [{"params": params, "name": name, "weight_decay": decay} for name, params, decay in groups if params]


def make_optimizer(groups: list[dict[str, Any]], spec: HostSpec) -> torch.optim.Optimizer:
    """Return the host's optimizer over these groups; fused if torch has it so on the CPU."""
    rate = spec.learning_rate
    if spec.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=spec.momentum, fused=True)
    if spec.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, fused=True)
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    if spec.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=rate, momentum=spec.momentum, foreach=True)
    return torch.optim.Adagrad(groups, lr=rate, fused=True)


ARCHITECTURES: Final[Mapping[str, Callable[[HostSpec, DataSet, Tensor], nn.Module]]] = MappingProxyType(
    {"mlp": MLP, "cnn": CNN, "residual": Residual, "transformer": Transformer, "recurrent": Recurrent}
)


def fits(architecture: str, data_set: str) -> bool:
    """Return whether an architecture can read a data set: convolutional networks only images, the others everything."""
    return architecture != "cnn" or DATA_SETS[data_set].kind is Kind.IMAGE


def build_host(spec: HostSpec) -> Host:
    """Make the host's network, optimizer and data share; deterministic given the specification and the torch version."""
    generator = _seeds(spec)
    share = share_of(DATA_SETS[spec.data_set], samples=spec.samples, held=HELD, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        model = ARCHITECTURES[spec.architecture](spec, share.data, share.train.inputs[0])
    optimizer = make_optimizer(parameter_groups(model, spec), spec)
    sites = model.sites()  # type: ignore[operator]  # to mypy any attribute of a Module is a Tensor or a Module
    return Host(spec, model, optimizer, share, sites)
