"""Where training starts: the last layers' biases at what the training hosts say of each kernel, whatever the state."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gnn.model.network import TamiyoGNN
from gnn.model.targets import Floats, Labels
from schemas.configuration import NUM_KERNELS, RISK_CLASSES

SHRINKAGE = 8.0  # labels of the overall mean that each kernel's own mean is drawn towards
GAIN = 0.1  # the heads start close to their biases, so that the first epochs learn deviations


@dataclass(frozen=True)
class KernelPriors:
    """Shrunken mean uplift [32] and risk shares [32, 5] by kernel, and the standard deviation of the uplifts."""

    uplift: Floats
    risk: Floats
    spread: float


def kernel_priors(labels: Labels) -> KernelPriors:
    """Priors from training labels; a kernel that was never measured takes the overall figures."""
    known = np.isfinite(labels.uplift)
    u, w, k = labels.uplift[known], labels.weight[known], labels.kernel[known]
    overall = float(np.average(u, weights=w)) if len(u) else 0.0
    spread = float(np.sqrt(np.average((u - overall) ** 2, weights=w))) if len(u) else 0.0
    sums = np.bincount(k, weights=w * u, minlength=NUM_KERNELS)
    mass = np.bincount(k, weights=w, minlength=NUM_KERNELS)
    classes = np.zeros((NUM_KERNELS, len(RISK_CLASSES)))
    seen = labels.risk >= 0
    np.add.at(classes, (labels.kernel[seen], labels.risk[seen]), labels.weight[seen])
    shares = (classes.sum(0) + 1.0) / (classes.sum() + len(RISK_CLASSES))
    return KernelPriors(
        uplift=(sums + SHRINKAGE * overall) / (mass + SHRINKAGE),
        risk=(classes + SHRINKAGE * shares) / (classes.sum(1, keepdims=True) + SHRINKAGE),
        spread=max(spread, 1e-3),
    )


def start_from(network: TamiyoGNN, priors: KernelPriors, tau: float) -> None:
    """Set the seed head's last layers so that the untrained network answers about as the best constant would."""
    head = network.seed_head
    with torch.no_grad():
        for layer in (head.policy, head.value, head.log_var, head.risk, head.score):
            nn.init.xavier_uniform_(layer.weight, gain=GAIN)
        nn.init.xavier_uniform_(network.graph_head.blending.weight, gain=GAIN)
        head.value.weight.mul_(priors.spread)
        head.policy.bias.copy_(torch.from_numpy(priors.uplift / tau))
        head.value.bias.copy_(torch.from_numpy(priors.uplift))
        head.log_var.bias.fill_(2.0 * float(np.log(priors.spread)))
        head.risk.bias.copy_(torch.from_numpy(np.log(priors.risk).ravel()))
