"""Preparing patches, against LazySlide's own transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from momkd.extract.lite0 import PREPARATION
from momkd.extract.prepare import Preparation
from momkd.extract.recipes import RECIPES


def patches(n: int = 3, size: int = 256) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    # Away from 0 and 255, where whole grey levels end and bicubic interpolation does not.
    coarse = torch.randint(70, 186, (n, 3, size // 8, size // 8), generator=generator, dtype=torch.uint8)
    return coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"ctranspath"}))
@pytest.mark.parametrize("size", [256, 896, 224])
def test_as_lazyslide_prepares(wsi: None, name: str, size: int) -> None:
    """H-optimus rounds to grey levels after resizing, which we do not: at most one level of 255."""
    from lazyslide_models import MODEL_REGISTRY, TimmModel
    from lazyslide_models._utils import get_default_transform

    kind = MODEL_REGISTRY[RECIPES[name].lazyslide]
    if kind.get_transform is TimmModel.get_transform:
        transform = get_default_transform((224, 224), **kind.transform_kws)
        tolerance = 1e-5
    else:
        transform = kind.get_transform(kind.__new__(kind))
        tolerance = 1.01 / 255 / min(RECIPES[name].prepare.std)
    batch = patches(1, size)
    theirs = transform(batch[0].permute(1, 2, 0).numpy())
    ours = RECIPES[name].prepare(batch)[0]
    torch.testing.assert_close(ours, theirs.as_subclass(torch.Tensor), atol=tolerance, rtol=0)


def test_lite0_is_127_and_128_on_grey_levels() -> None:
    batch = torch.full((1, 3, 224, 224), 200, dtype=torch.uint8)
    torch.testing.assert_close(PREPARATION(batch), torch.full((1, 3, 224, 224), (200 - 127) / 128))


def test_a_batch_is_its_patches_one_by_one() -> None:
    batch = patches(19)
    assert torch.equal(PREPARATION(batch), torch.cat([PREPARATION(patch[None]) for patch in batch]))


def test_crop_is_the_middle() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).expand(1, 3, 256, 256)
    cropped = Preparation((0, 0, 0), (1, 1, 1), resize=256, crop=224)(ramp)
    np.testing.assert_allclose(cropped[0, 0, 0] * 255, np.arange(16, 240), rtol=1e-5)


def test_words_say_everything() -> None:
    words = str(Preparation(resize=256, interpolation="bicubic"))
    assert words.startswith("resized to 256 px, bicubic, antialiased, middle 224 px; (x/255 - mean) / std, mean 0.485")
