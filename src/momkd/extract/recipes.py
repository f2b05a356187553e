"""The encoders that momkd can build by itself, so that a weight file is enough and no hub is asked.

Architectures are timm's, with the arguments that the authors give on their model cards; preparations are LazySlide's,
which pin those cards too. tests/extract/test_recipes.py holds both against LazySlide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from momkd.extract.prepare import Preparation

_H_OPTIMUS = Preparation((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517), interpolation="bicubic")
_UNI2 = {
    "img_size": 224,
    "patch_size": 14,
    "depth": 24,
    "num_heads": 24,
    "init_values": 1e-5,
    "embed_dim": 1536,
    "mlp_ratio": 2.66667 * 2,
    "no_embed_class": True,
    "reg_tokens": 8,
    "dynamic_img_size": True,
}
_VIRCHOW = {
    "img_size": 224,
    "init_values": 1e-5,
    "mlp_ratio": 5.3375,
    "global_pool": "",
    "dynamic_img_size": True,
}
_H_OPTIMUS_VIT = {"img_size": 224, "init_values": 1e-5, "global_pool": "token", "dynamic_img_size": False}
_GIGAPATH = {
    "img_size": 224,
    "patch_size": 16,
    "embed_dim": 1536,
    "depth": 40,
    "num_heads": 24,
    "init_values": 1e-5,
    "mlp_ratio": 5.33334,
}


@dataclass(frozen=True)
class Recipe:
    """One encoder: timm's name and arguments, how patches are prepared, how its output becomes one vector.

    ``lazyslide`` is its name in LazySlide, ``hub`` where its weights live, ``width`` D. ``tokens``: its output is
    (B, tokens, width / 2); class token and mean of the patch tokens (after ``prefix`` others) are joined.
    """

    lazyslide: str
    hub: str
    width: int
    architecture: str
    arguments: Mapping[str, Any]
    prepare: Preparation = field(default_factory=Preparation)
    swiglu: bool = False
    tokens: bool = False
    conv_stem: bool = False

    def build(self) -> nn.Module:
        """Make the network, its weights random."""
        import timm

        arguments = {"num_classes": 0, **self.arguments}
        if self.swiglu:
            arguments |= {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
        if self.conv_stem:
            arguments["embed_layer"] = ConvStem
        module: nn.Module = timm.create_model(self.architecture, pretrained=False, **arguments)
        return module.eval()

    def pool(self, module: Any, output: Tensor) -> Tensor:
        """Turn the network's output into (B, width)."""
        if not self.tokens:
            return output
        prefix = int(module.num_prefix_tokens)
        return torch.cat([output[:, 0], output[:, prefix:].mean(1)], dim=1)


class ConvStem(nn.Module):
    """CTransPath's stem: two 3 × 3 convolutions of stride 2 with batch norm, then one 1 × 1, in place of patches.

    Wang et al. 2022, https://doi.org/10.1016/j.media.2022.102559. (B, 3, h, w) → (B, h/4, w/4, width).
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: Any = None,
        **_: Any,
    ) -> None:
        super().__init__()
        self.img_size, self.patch_size = _pair(img_size), _pair(patch_size)
        self.grid_size = (self.img_size[0] // self.patch_size[0], self.img_size[1] // self.patch_size[1])
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        widths = (in_chans, embed_dim // 8, embed_dim // 4)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.proj = nn.Sequential(*layers, nn.Conv2d(widths[-1], embed_dim, 1))
        self.norm = norm_layer(embed_dim) if norm_layer else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Embed an image."""
        embedded: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return embedded


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


RECIPES: dict[str, Recipe] = {
    "uni": Recipe(
        "uni",
        "MahmoodLab/UNI",
        1024,
        "vit_large_patch16_224",
        {"img_size": 224, "patch_size": 16, "init_values": 1e-5, "dynamic_img_size": True},
    ),
    "uni2-h": Recipe("uni2", "MahmoodLab/UNI2-h", 1536, "vit_giant_patch14_224", _UNI2, swiglu=True),
    "virchow": Recipe(
        "virchow",
        "paige-ai/Virchow",
        2560,
        "vit_huge_patch14_224",
        _VIRCHOW,
        Preparation(interpolation="bicubic"),
        swiglu=True,
        tokens=True,
    ),
    "virchow2": Recipe(
        "virchow2",
        "paige-ai/Virchow2",
        2560,
        "vit_huge_patch14_224",
        {**_VIRCHOW, "reg_tokens": 4},
        Preparation(interpolation="bicubic"),
        swiglu=True,
        tokens=True,
    ),
    "h-optimus-0": Recipe(
        "h-optimus-0", "bioptimus/H-optimus-0", 1536, "vit_giant_patch14_reg4_dinov2", _H_OPTIMUS_VIT, _H_OPTIMUS
    ),
    "h-optimus-1": Recipe(
        "h-optimus-1", "bioptimus/H-optimus-1", 1536, "vit_giant_patch14_reg4_dinov2", _H_OPTIMUS_VIT, _H_OPTIMUS
    ),
    "gigapath": Recipe(
        "gigapath",
        "prov-gigapath/prov-gigapath",
        1536,
        "vit_giant_patch14_dinov2",
        _GIGAPATH,
        Preparation(resize=256, interpolation="bicubic"),
    ),
    "ctranspath": Recipe("ctranspath", "", 768, "swin_tiny_patch4_window7_224", {}, conv_stem=True),
}
