"""List the policy's 32 kernels: the blueprint ids behind column k of every [.., 32] output, in fixed order.

The order is part of the published format (the manifest repeats it): a kernel is never moved, removed or reused.
"""

from typing import Final

KERNELS: Final[tuple[str, ...]] = (
    "kernel-identity",
    "kernel-scale",
    "kernel-shift",
    "kernel-affine",
    "kernel-linear",
    "kernel-low-rank-4",
    "kernel-low-rank-16",
    "kernel-bottleneck-relu",
    "kernel-bottleneck-gelu",
    "kernel-mlp-relu",
    "kernel-mlp-gelu",
    "kernel-mlp-silu",
    "kernel-swiglu",
    "kernel-gated-residual",
    "kernel-highway",
    "kernel-squeeze-excite",
    "kernel-layer-norm",
    "kernel-rms-norm",
    "kernel-batch-norm",
    "kernel-dropout",
    "kernel-noise",
    "kernel-prelu",
    "kernel-silu",
    "kernel-tanh",
    "kernel-depthwise-conv",
    "kernel-conv",
    "kernel-pointwise-conv",
    "kernel-dilated-conv",
    "kernel-token-mixer",
    "kernel-self-attention",
    "kernel-average-pool",
    "kernel-max-pool",
)

KERNEL_INDEX: Final[dict[str, int]] = {kernel: index for index, kernel in enumerate(KERNELS)}

# Family of each kernel, in the order of `KERNELS`. A kernel with few measurements borrows from others of its family.
KERNEL_FAMILIES: Final[tuple[str, ...]] = (
    *("affine",) * 4,
    *("projection",) * 9,
    *("gate",) * 3,
    *("norm",) * 3,
    *("noise",) * 2,
    *("activation",) * 3,
    *("convolution",) * 4,
    *("mixing",) * 2,
    *("pooling",) * 2,
)
