"""Define stacked counterparts of layers: the same operation for all copies, each with weights of its own.

Every parameter and buffer of shape [...] becomes one of shape [copies, ...], in the same order.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from recorder.stacks.folding import fold, unfold


class Stacked(nn.Module):
    """A layer's parameters and buffers, `count` times each."""

    def __init__(self, layer: nn.Module, count: int) -> None:
        super().__init__()
        self.count = count
        for name, parameter in layer.named_parameters(recurse=False):
            self.register_parameter(name, nn.Parameter(repeat(parameter.detach(), count)))
        for name, buffer in layer.named_buffers(recurse=False):
            self.register_buffer(name, repeat(buffer, count))


def repeat(value: Tensor, count: int) -> Tensor:
    """Return `count` copies of a tensor, [count, ...]."""
    return value.expand(count, *value.shape).clone(memory_format=torch.contiguous_format)


def affine(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x W^T + b of every copy: [copies * B, ..., C] with weights [copies, D, C] to [copies * B, ..., D]."""
    rows = inputs.reshape(len(weight), -1, inputs.shape[-1])
    return torch.baddbmm(bias[:, None], rows, weight.mT).view(*inputs.shape[:-1], weight.shape[1])


class Linear(Stacked):
    """nn.Linear."""

    weight: Tensor
    bias: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        """Return each copy's affine map, [copies * B, ..., D]."""
        return affine(inputs, self.weight, self.bias)


class Embedding(Stacked):
    """nn.Embedding of tokens that all copies share: [B, T] to [copies * B, T, C]."""

    weight: Tensor
    start: Tensor

    def __init__(self, layer: nn.Embedding, count: int) -> None:
        super().__init__(layer, count)
        self.register_buffer("start", torch.arange(count)[:, None, None] * layer.num_embeddings)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return each copy's vectors of the tokens."""
        return F.embedding(self.start + tokens, self.weight.flatten(0, 1)).flatten(0, 1)


class Conv2d(Stacked):
    """nn.Conv2d, as one group of channels a copy. An image that is not folded yet is shared by all copies."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Conv2d, count: int) -> None:
        super().__init__(layer, count)
        self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation
        self.channels, self.groups = layer.in_channels, layer.groups

    def forward(self, images: Tensor) -> Tensor:
        """Return each copy's convolution, [B, copies * D, H, W], channels last in memory: there groups are quick."""
        shared = images.shape[1] == self.channels
        return F.conv2d(
            images.contiguous(memory_format=torch.channels_last),
            self.weight.flatten(0, 1),
            self.bias.flatten(0, 1),
            self.stride,
            self.padding,
            self.dilation,
            groups=1 if shared else self.groups * self.count,
        )


class BatchNorm(Stacked):
    """nn.BatchNorm1d of vectors, nn.BatchNorm2d of images."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, layer: nn.BatchNorm1d | nn.BatchNorm2d, count: int) -> None:
        super().__init__(layer, count)
        self.momentum, self.eps = layer.momentum or 0.0, layer.eps

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the input normalized over each copy's batch; its running statistics follow."""
        if inputs.ndim > 2:
            return self._normalized(inputs)
        channels = inputs.unflatten(0, (self.count, -1)).transpose(0, 1)
        return self._normalized(channels.flatten(1)).view(channels.shape).transpose(0, 1).reshape(inputs.shape)

    def _normalized(self, inputs: Tensor) -> Tensor:
        mean, variance, weight, bias = (v.flatten(0, 1) for v in (self.running_mean, self.running_var, self.weight, self.bias))
        return F.batch_norm(inputs, mean, variance, weight, bias, self.training, self.momentum, self.eps)


class LayerNorm(Stacked):
    """nn.LayerNorm over the last dimension."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: nn.LayerNorm, count: int) -> None:
        super().__init__(layer, count)
        self.shape, self.eps = layer.normalized_shape, layer.eps

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the normalized input with each copy's scale and shift."""
        normal = F.layer_norm(inputs, self.shape, eps=self.eps).view(self.count, -1, inputs.shape[-1])
        return torch.addcmul(self.bias[:, None], normal, self.weight[:, None]).view(inputs.shape)


class GroupNorm(Stacked):
    """nn.GroupNorm of images."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: nn.GroupNorm, count: int) -> None:
        super().__init__(layer, count)
        self.groups, self.eps = layer.num_groups * count, layer.eps

    def forward(self, images: Tensor) -> Tensor:
        """Return each copy's images, normalized."""
        return F.group_norm(images, self.groups, self.weight.flatten(0, 1), self.bias.flatten(0, 1), self.eps)


class Dropout(Stacked):
    """nn.Dropout and nn.Dropout2d with one mask for all copies: the one that each of them would draw alone."""

    def __init__(self, layer: nn.Dropout | nn.Dropout2d, count: int) -> None:
        super().__init__(layer, count)
        self.share, self.channels = layer.p, isinstance(layer, nn.Dropout2d)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the input with the same elements (or channels) of every copy dropped."""
        if not self.training or not self.share:
            return inputs
        part = unfold(inputs, self.count)[0]
        if inputs.ndim < 4:  # in the order of memory, as torch draws
            mask = kept(torch.empty_like(part), self.share)
            return torch.mul(inputs.unflatten(0, (self.count, -1)), mask).flatten(0, 1)
        mask = kept(part.new_empty((*part.shape[:2], 1, 1) if self.channels else part.shape), self.share)
        return inputs * mask.repeat(1, self.count, 1, 1)


def kept(mask: Tensor, share: float) -> Tensor:
    """Fill a mask: 0 for the share of elements that is dropped, 1 / (1 - share) for the others."""
    return mask.bernoulli_(1.0 - share).div_(1.0 - share)


class Flatten(Stacked):
    """nn.Flatten of images: [B, copies * C, H, W] to [copies * B, C * H * W]."""

    def forward(self, images: Tensor) -> Tensor:
        """Return each copy's vectors."""
        return torch.unflatten(images, 1, (self.count, -1)).transpose(0, 1).flatten(2).flatten(0, 1)


class OneByOne(nn.Module):
    """Any other module: copies run one after the other, each on its part, all from the same random state."""

    def __init__(self, layer: nn.Module, count: int) -> None:
        super().__init__()
        self.count, self.inner = count, [layer]  # in a list: its own parameters are no part of the stack
        self.names = [name for name, _ in layer.named_parameters()]
        self.values = nn.ParameterList(repeat(value.detach(), count) for value in layer.parameters())
        self.fixed = {name: repeat(value, count) for name, value in layer.named_buffers()}

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs of all copies, folded."""
        self.inner[0].train(self.training)
        state, outputs = torch.get_rng_state(), []
        for number, part in enumerate(unfold(inputs, self.count)):
            torch.set_rng_state(state)
            own = dict(zip(self.names, self.values, strict=True)) | self.fixed
            outputs.append(functional_call(self.inner[0], {name: value[number] for name, value in own.items()}, (part,)))
        return fold(outputs)
