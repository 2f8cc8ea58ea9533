"""What the machine tells of the device that a model trains on."""

import sys

import torch


def _driver_faults() -> tuple[type[Exception], ...]:
    """What asking the driver raises: without its bindings, without a driver, or where the device does not tell (MIG)."""
    refused = getattr(sys.modules.get("pynvml"), "NVMLError", RuntimeError)
    return (ImportError, RuntimeError, OSError, refused)


def gpu_percent(device: torch.device | None) -> float | None:
    """Share of the last sample period in which kernels ran on the GPU `device`, in percent, as `nvidia-smi` shows it; None
    for any other device, and where the driver does not tell (`nvidia-ml-py` is not installed, MIG)."""
    if device is None or device.type != "cuda":
        return None
    try:
        return float(torch.cuda.utilization(device))
    except _driver_faults():
        return None
