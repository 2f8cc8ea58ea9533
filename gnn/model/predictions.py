"""Hold the predictions of any compared model for P measured pairs, in the order of their labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gnn.graph.batch import GraphStore
from gnn.model.network import TamiyoGNN
from gnn.model.targets import Floats, Ints, Labels, collate


@dataclass(frozen=True)
class Predictions:
    """Predictions per pair: `value` [P] (expected uplift), `deviation` [P] or None, `risk_logits` [P, 5] or None, `logit` [P].

    `logit` orders the pairs of one state: the pair with the highest is the model's choice; ties are drawn at random.
    """

    value: Floats
    logit: Floats
    deviation: Floats | None = None
    risk_logits: Floats | None = None

    def take(self, rows: Ints) -> "Predictions":
        """Return those pairs, in that order."""
        deviation, risk = self.deviation, self.risk_logits
        return Predictions(
            self.value[rows],
            self.logit[rows],
            None if deviation is None else deviation[rows],
            None if risk is None else risk[rows],
        )


def join(parts: Sequence[Predictions]) -> Predictions:
    """Concatenate several predictions of one model."""
    return Predictions(
        np.concatenate([part.value for part in parts]),
        np.concatenate([part.logit for part in parts]),
        _joined([part.deviation for part in parts]),
        _joined([part.risk_logits for part in parts]),
    )


def _joined(parts: Sequence[Floats | None]) -> Floats | None:
    """Concatenate the parts; None if one of them is None."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


@torch.no_grad()
def predict(network: TamiyoGNN, store: GraphStore, labels: Labels, batch_graphs: int) -> Predictions:
    """Return the network's predictions for `labels` (sorted by graph), in evaluation mode."""
    network.eval()
    graphs = labels.graphs().tolist()
    found: list[list[torch.Tensor]] = []
    for start in range(0, len(graphs), batch_graphs):
        batch = collate(store, labels, graphs[start : start + batch_graphs])
        outputs = network(batch.batch)
        place = (batch.seed, batch.kernel)
        found.append(
            [
                outputs.seed_value[place],
                outputs.seed_scores[batch.seed] + outputs.seed_policy_logits[place],
                (0.5 * outputs.seed_value_log_var[place]).exp(),
                outputs.seed_risk_logits[place],
            ]
        )
    columns = [torch.cat(parts).double().numpy() for parts in zip(*found, strict=True)]
    if not columns:
        empty = np.zeros(0)
        return Predictions(empty, empty, empty, np.zeros((0, 5)))
    return Predictions(*columns)
