"""Patches as an encoder wants them: resized, cropped, normalised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Patches converted to float at once: a batch of 64 patches of 896 px would take 600 MB.
_AT_ONCE = 8


@dataclass(frozen=True)
class Preparation:
    """Resize to ``resize`` × ``resize`` px (antialiased), crop the middle ``crop``, then (x / 255 − mean) / std.

    ``rounded`` keeps whole grey levels after resizing, as resizing an image file does; on a CPU that is also faster.
    """

    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    resize: int = 224
    crop: int = 224
    interpolation: str = "bilinear"
    rounded: bool = False

    def __call__(self, patches: Tensor) -> Tensor:
        """Turn (B, 3, h, w) uint8 into (B, 3, crop, crop) float32."""
        return torch.cat([self._some(part) for part in torch.split(patches, _AT_ONCE)])

    def __str__(self) -> str:
        crop = "" if self.crop == self.resize else f", middle {self.crop} px"
        numbers = [" ".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std)]
        size = f"{self.resize} px, {self.interpolation}, antialiased{', rounded' if self.rounded else ''}"
        return f"resized to {size}{crop}; (x/255 - mean) / std, mean {numbers[0]}, std {numbers[1]}"

    def _some(self, patches: Tensor) -> Tensor:
        if patches.shape[-2:] != (self.resize, self.resize):
            patches = self._resized(patches)
        edge = (self.resize - self.crop) // 2
        patches = patches[..., edge : edge + self.crop, edge : edge + self.crop]
        # One multiplication and one addition a value: (x - 255 mean) / (255 std).
        mean, std = (torch.tensor(values, device=patches.device).view(3, 1, 1) for values in (self.mean, self.std))
        return patches.float().mul_(1 / (255 * std)).sub_(mean / std)

    def _resized(self, patches: Tensor) -> Tensor:
        whole = self.rounded and patches.device.type == "cpu"
        size = (self.resize, self.resize)
        resized = functional.interpolate(
            patches if whole else patches.float(), size, mode=self.interpolation, antialias=True, align_corners=False
        )
        return resized if whole or not self.rounded else resized.round_().clamp_(0, 255)
