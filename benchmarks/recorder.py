"""Measure CPU time of a training step with the recorder over without, at k = 10, and whether the losses are bit-equal.

`python benchmarks/recorder.py [--blocks N]` prints one line per host. Wall time is unreliable on a shared machine; CPU time of
the process does not count the neighbours.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

_HERE = Path(__file__).resolve().parent  # this file has the package's name: its folder must not come first
sys.path[:] = [str(_HERE.parent), *(path for path in sys.path if Path(path or ".").resolve() != _HERE)]

from recorder.watch import watch  # noqa: E402

Inputs = tuple[Tensor, Tensor]
K = 10  # every k-th step is measured


class Tokens(nn.Module):
    """Embedding, a body over [B, T, C], and class logits of the last position."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.embedding, self.body, self.head = nn.Embedding(64, width), body, nn.Linear(width, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.body(self.embedding(tokens))
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        logits: Tensor = self.head(hidden[:, -1])
        return logits


class ResidualBlock(nn.Module):
    """h + f(h) of two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = torch.relu(inputs + self.change(inputs))
        return result


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, 10)
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1568, 10),
    )  # fmt: skip


def residual() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), ResidualBlock(16), ResidualBlock(16), nn.Flatten(), nn.Linear(3136, 10)
    )


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.1, batch_first=True)
    return Tokens(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), 64)


def lstm() -> nn.Module:
    return Tokens(nn.LSTM(64, 64, num_layers=2, batch_first=True, dropout=0.1), 64)


def gru() -> nn.Module:
    return Tokens(nn.GRU(64, 64, batch_first=True), 64)


def images(generator: torch.Generator) -> Inputs:
    return torch.randn(64, 1, 28, 28, generator=generator), torch.randint(0, 10, (64,), generator=generator)


def tokens(generator: torch.Generator) -> Inputs:
    return torch.randint(0, 64, (64, 32), generator=generator), torch.randint(0, 10, (64,), generator=generator)


HOSTS: dict[str, tuple[Callable[[], nn.Module], Callable[[torch.Generator], Inputs]]] = {
    "mlp": (mlp, images),
    "cnn": (cnn, images),
    "residual": (residual, images),
    "transformer": (encoder, tokens),
    "lstm": (lstm, tokens),
    "gru": (gru, tokens),
}


class Training:
    """One training of a host, watched or not, that goes on block by block."""

    def __init__(self, name: str, watched: contextlib.ExitStack | None) -> None:
        torch.manual_seed(0)
        build, batch = HOSTS[name]
        self.model = build()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.inputs, self.targets = batch(torch.Generator().manual_seed(1))
        self.state = torch.get_rng_state()
        self.losses: list[float] = []
        self.seen = None if watched is None else watched.enter_context(watch(self.model, self.optimizer, every=K))

    def block(self) -> list[float]:
        """Return CPU seconds of each of k steps; if the training is watched, one of them is measured."""
        torch.set_rng_state(self.state)
        losses, times = [], []
        for _ in range(K):
            started = time.process_time()
            self.optimizer.zero_grad(set_to_none=True)
            loss = cross_entropy(self.model(self.inputs), self.targets)
            loss.backward()
            self.optimizer.step()
            if self.seen is not None:
                self.seen.step(loss, len(self.inputs))
            times.append(time.process_time() - started)
            losses.append(loss.detach())
        self.state = torch.get_rng_state()
        self.losses += [float(loss) for loss in losses]
        return times


def measure(name: str, blocks: int) -> tuple[float, float, bool]:
    """(ratio of CPU times, CPU ms a step without, bit-equal losses).

    Both trainings take turns, block by block. Each of the k steps of a block counts with the least that it cost in any
    block: everything above that is what the neighbours did to the caches.
    """
    with contextlib.ExitStack() as stack:
        plain, watched = Training(name, None), Training(name, stack)
        rounds = [(plain.block(), watched.block()) for _ in range(blocks + 1)][1:]
    without, with_it = (sum(map(min, zip(*(r[side] for r in rounds), strict=True))) for side in (0, 1))
    return with_it / without, without / K * 1e3, plain.losses == watched.losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=40, help="blocks of k steps")
    parser.add_argument("--host", choices=tuple(HOSTS), action="append", help="only this host (repeatable)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.json:
        found = {name: measure(name, arguments.blocks) for name in arguments.host or HOSTS}
        print(
            json.dumps({name: {"ratio": ratio, "ms": plain, "equal": equal} for name, (ratio, plain, equal) in found.items()})
        )
        return
    for name in arguments.host or HOSTS:
        ratio, plain, equal = measure(name, arguments.blocks)
        print(
            f"{name:12s} {plain:7.2f} CPU ms a step, with the recorder x {ratio:.3f}, losses {'equal' if equal else 'DIFFER'}"
        )


if __name__ == "__main__":
    main()
