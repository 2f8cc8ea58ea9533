"""Trainings that are killed at random moments: `python -m tests.crash.killed_trainings PLACE KILLS SEED [--whole]`.

Prints as JSON how many kills there were, how many of the trainings of an experiment (a fold each, then the published weights)
had a checkpoint after each kill, and the digests of what the undisturbed and the killed experiment gave. `--whole` trains a
network of the default shape; otherwise it is a tiny one.
"""

import hashlib
import json
import random
import sys
import time
from pathlib import Path

from gnn.model.experiment import train
from gnn.model.trained import TrainedModel
from schemas.configuration import ModelConfig, TrainingConfig
from tests.crash.killed_runs import forked
from tests.gnn.model.store import problem

TINY = ModelConfig(hidden=8, activation_hidden=8, out=8, head_hidden=8, rank=4, members=2)
QUICK = {"batch_graphs": 8, "bootstrap": 20, "checkpoint_seconds": 0.0, "boosting": False, "gaussian_process": False}


def digest(model: TrainedModel) -> str:
    """Digest of the weights and of every figure."""
    found = hashlib.sha256(json.dumps(model.metrics, sort_keys=True).encode())
    for name, tensor in sorted(model.network.state_dict().items()):
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def trained(checkpoints: Path, *, whole: bool) -> str:
    """Train all folds and the published weights, on from what is in `checkpoints`; the digest of the result."""
    shape = (
        {"epochs": 24, "rounds_epochs": 8, "model": ModelConfig()}
        if whole
        else {"epochs": 6, "rounds_epochs": 3, "model": TINY}
    )
    return digest(train(*problem(48 if whole else 16), TrainingConfig(**QUICK, **shape), checkpoints))


def main(place: Path, kills: int, seed: int, *, whole: bool) -> dict[str, object]:
    """Train once undisturbed, and once killed `kills` times; kills come too soon for it to end before the last."""
    begun = time.monotonic()
    _, undisturbed = forked(lambda: trained(place / "undisturbed", whole=whole))
    seconds, moments = time.monotonic() - begun, random.Random(seed)
    progress, killed = [], 0
    for _ in range(kills):
        finished, _ = forked(
            lambda: trained(place / "killed", whole=whole), kill_after=moments.uniform(0.0, 0.8 * seconds / kills)
        )
        killed += not finished
        progress.append(len(list((place / "killed").glob("*.pt"))))
    _, resumed = forked(lambda: trained(place / "killed", whole=whole))
    return {"kills": killed, "trainings begun": progress, "undisturbed": undisturbed, "resumed": resumed, "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), whole="--whole" in sys.argv)))
