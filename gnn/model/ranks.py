"""Share the trainings of an experiment among the processes that `torchrun` started, and gather the networks in the first.

A training is never split, so its weights do not depend on the number of processes. Which process does which training depends
on the trainings and that number alone, so that a repetition uses the same devices.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import safetensors.torch
import torch
from torch import Tensor, distributed

from gnn.model.losses import LossScale
from gnn.model.network import TamiyoGNN
from gnn.model.rounds import Fits, Round
from gnn.model.training import Fitted
from schemas.configuration import ModelConfig, TrainingConfig
from schemas.errors import TrainingError

BASELINES: Final = 2.0  # cost of all baselines, which the first process fits, in trainings; measured on the sample
_PATIENCE: Final = timedelta(days=7)  # a process waits for the longest share of all; torchrun ends all if one dies


@dataclass(frozen=True)
class Ranks:
    """This process's number among `size`, and the device whose tensors it sends and receives."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    @contextmanager
    def joined(cls, environment: Mapping[str, str], device: str) -> Iterator["Ranks"]:
        """Join the processes that torchrun's variables name; without them, this is the only one.

        NCCL connects them if each has a GPU to train on, else gloo. Processes that train on fewer GPUs share these.
        Raises TrainingError if there is no GPU.
        """
        rank, size = int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
        gpus = torch.cuda.device_count() if device == "cuda" else 0
        if device == "cuda" and not gpus:
            raise TrainingError('device "cuda": expected a GPU on this machine, found none; see [training] device and launch')
        if gpus:
            torch.cuda.set_device(int(environment.get("LOCAL_RANK", 0)) % gpus)
        if "RANK" not in environment:
            yield cls(rank, size, torch.device("cpu"))
            return
        own_gpu = 0 < int(environment["LOCAL_WORLD_SIZE"]) <= gpus
        distributed.init_process_group("nccl" if own_gpu else "gloo", timeout=_PATIENCE)
        yield cls(rank, size, torch.device("cuda" if own_gpu else "cpu"))
        distributed.destroy_process_group()  # after an error the process ends: leaving the group could wait for the others

    def share(self, fits: Fits, rounds: Sequence[Round]) -> Fits:
        """Fit the rounds of this process; return `fits` with all networks, in processes other than the first with its own."""
        owners = owners_of(rounds, self.size)
        fitted = {one.name: fits(one) for one in rounds if owners[one.name] == self.rank}
        for one in rounds:
            if owners[one.name] != 0:
                received = self._from(owners[one.name], fitted.get(one.name), one.model, fits.config)
                if self.rank == 0:
                    fitted[one.name] = received
        return replace(fits, fitted=fitted)

    def _from(self, owner: int, fitted: Fitted | None, model: ModelConfig, config: TrainingConfig) -> Fitted:
        """Send a network from its owner, which passes it, to all processes."""
        numbers = b"" if fitted is None else json.dumps([fitted.best_epoch, fitted.epochs, fitted.history]).encode()
        weights = b"" if fitted is None else safetensors.torch.save(_weights(fitted))
        best, epochs, history = json.loads(self._broadcast(owner, numbers))
        network = network_of(model, safetensors.torch.load(self._broadcast(owner, weights)))
        return Fitted(network, LossScale(config.tau, config.choice_tau), best, epochs, tuple(history))

    def _broadcast(self, owner: int, data: bytes) -> bytes:
        size = torch.tensor([len(data)], dtype=torch.int64, device=self.device)
        distributed.broadcast(size, src=owner)
        content = torch.zeros(int(size), dtype=torch.uint8)
        if self.rank == owner:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        content = content.to(self.device)
        distributed.broadcast(content, src=owner)
        return content.cpu().numpy().tobytes()


def owners_of(rounds: Sequence[Round], size: int) -> dict[str, int]:
    """Return the process of each round, by name: the longest first, each to the process with the least work.

    A training's work is its number of labels. The first process fits the baselines too.
    """
    work = [0.0] * size
    if rounds:
        work[0] = BASELINES * sum(len(one.rows) for one in rounds) / len(rounds)
    found = {}
    for one in sorted(rounds, key=lambda one: (-len(one.rows), one.name)):
        owner = min(range(size), key=lambda number: (work[number], -number))
        work[owner] += max(1, len(one.rows))
        found[one.name] = owner
    return found


def network_of(model: ModelConfig, weights: Mapping[str, Tensor]) -> TamiyoGNN:
    """Return a network with these weights, in evaluation mode on the CPU. Draws no random number."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = TamiyoGNN(model)
    network.load_state_dict(dict(weights), assign=True)
    return network.eval().requires_grad_(False)


def _weights(fitted: Fitted) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in fitted.network.state_dict().items()}
