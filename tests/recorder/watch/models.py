"""Networks that several tests watch."""

import torch
from torch import Tensor, nn


class Unet(nn.Module):
    """Down, up, and a concatenation across."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.up, self.leave = nn.ConvTranspose2d(4, 4, 2, stride=2), nn.Conv2d(5, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        deep = self.up(torch.relu(self.deep(torch.relu(self.down(images)))))
        result: Tensor = self.leave(torch.cat([images, deep], dim=1))
        return result
