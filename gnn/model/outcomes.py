"""What a measured graft says: its uplift and its risk class (definitions of contracts.md 3 and the recording notes)."""

import numpy as np
from numpy.typing import NDArray

from schemas.configuration import RISK_CLASSES

Floats = NDArray[np.float64]
NONE, LOW, MEDIUM, HIGH, CRITICAL = range(len(RISK_CLASSES))


def uplift(base_loss: Floats, control_delta: Floats, treated_delta: Floats) -> Floats:
    """u = ln((base + control) / (base + treated)), in nats of validation loss; NaN where a term is missing or not positive."""
    control, treated = base_loss + control_delta, base_loss + treated_delta
    sound = (control > 0) & (treated > 0) & np.isfinite(control) & np.isfinite(treated)
    u = np.full(base_loss.shape, np.nan)
    u[sound] = np.log(control[sound] / treated[sound])
    return u


def risk_class(
    u: Floats, dip: Floats, late_sd: Floats, control_late_sd: Floats, diverged: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Risk class 0..4 of each replicate, first match from the worst; -1 where neither an uplift nor a divergence is known.

    critical: diverged or u < -1; high: u < -.25 or late loss sd > 4 (control sd + .02); medium: u < -.08 or mid-window
    dip < -.15; low: u < -.02 or dip < -.05; else none. A missing dip or spread never raises the class.
    """
    with np.errstate(invalid="ignore"):
        unsteady = late_sd > 4.0 * (control_late_sd + 0.02)
        rules = [
            (diverged | (u < -1.0), CRITICAL),
            ((u < -0.25) | unsteady, HIGH),
            ((u < -0.08) | (dip < -0.15), MEDIUM),
            ((u < -0.02) | (dip < -0.05), LOW),
            (np.isfinite(u), NONE),
        ]
    classes: NDArray[np.int64] = np.select([rule for rule, _ in rules], [name for _, name in rules], default=-1)
    classes[~np.isfinite(u) & ~diverged] = -1
    return classes
