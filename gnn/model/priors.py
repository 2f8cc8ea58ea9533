"""Set where training starts: the last layers' biases are at each kernel's figures over the training hosts, for any state."""

from dataclasses import dataclass

import numpy as np
import torch

from gnn.model.network import TamiyoGNN
from gnn.model.targets import Floats, Labels
from schemas.configuration import NUM_KERNELS, RISK_CLASSES

SHRINKAGE = 8.0  # weight, in labels, of the overall mean in each kernel's own mean


@dataclass(frozen=True)
class KernelPriors:
    """Shrunken mean uplift [32] and risk shares [32, 5] by kernel, and the standard deviation of the uplifts."""

    uplift: Floats
    risk: Floats
    spread: float


def kernel_priors(labels: Labels) -> KernelPriors:
    """Compute priors from training labels; a kernel that was never measured has the overall figures."""
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


def start_from(network: TamiyoGNN, priors: KernelPriors, tau: float, choice_tau: float) -> None:
    """Set the kernels' biases so that the untrained network answers about like the best constant.

    Values are learned in units of `tau`, logits in units of `choice_tau`.
    """
    head = network.pair_head
    with torch.no_grad():
        head.unit.fill_(tau)
        head.bias[..., 0] = torch.from_numpy(priors.uplift / choice_tau)
        head.bias[..., 1] = torch.from_numpy(priors.uplift / tau)
        head.bias[..., 2] = 2.0 * float(np.log(priors.spread / tau))
        head.bias[..., 3:] = torch.from_numpy(np.log(priors.risk))
