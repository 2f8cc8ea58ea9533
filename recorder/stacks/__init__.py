"""Train many copies of one network at once: layer by layer in common operations, each copy with weights of its own.

A stacked network takes one batch, which all copies share, and returns the logits of every copy, [copies * B, classes]. In
between, vectors and sequences are folded into the batch, copy by copy: [copies * B, C], [copies * B, T, C]; images into the
channels: [B, copies * C, H, W]. So a host's own code runs unchanged, and only layers with parameters or randomness have a
stacked counterpart. What is random (dropout) is drawn once and is the same in every copy: copies differ in their weights alone.
"""

from recorder.stacks.folding import fold, unfold
from recorder.stacks.layers import repeat
from recorder.stacks.network import stacked

__all__ = ["fold", "repeat", "stacked", "unfold"]
