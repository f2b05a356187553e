"""The networks that a weight file is enough for, held against LazySlide's cards and classes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from momkd.errors import ExtractError
from momkd.extract import encoders
from momkd.extract.encoders import load_encoder
from momkd.extract.recipes import RECIPES, Recipe
from momkd.extract.weights import weights_digest

CPU = torch.device("cpu")
VITS = sorted(set(RECIPES) - {"ctranspath"})
SMALL = {"depth": 2, "embed_dim": 32, "num_heads": 2}


def small(name: str) -> Recipe:
    """The recipe with a network of 2 narrow layers; everything else as it is."""
    recipe = RECIPES[name]
    arguments = {**recipe.arguments, **SMALL}
    return dataclasses.replace(recipe, arguments=arguments, width=64 if recipe.tokens else 32)


@pytest.mark.parametrize("name", VITS)
def test_networks_are_as_large_as_their_cards_say(wsi: None, name: str) -> None:
    from lazyslide_models import MODEL_REGISTRY

    recipe, card = RECIPES[name], MODEL_REGISTRY[RECIPES[name].lazyslide]
    with torch.device("meta"):
        module = recipe.build()
    millions = sum(parameter.numel() for parameter in module.parameters()) / 1e6
    published = float(card.param_size[:-1]) * {"M": 1, "B": 1000}[card.param_size[-1]]
    assert millions == pytest.approx(published, abs=0.06 if published < 1000 else 5)
    assert recipe.width == card.encode_dim
    assert card.hf_url == f"https://huggingface.co/{recipe.hub}"
    output = module(torch.zeros(2, 3, 224, 224, device="meta"))
    assert recipe.pool(module, output).shape == (2, recipe.width)


@pytest.mark.parametrize("name", VITS)
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_weight_file_gives_what_lazyslide_gives(
    wsi: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, suffix: str
) -> None:
    from lazyslide_models import MODEL_REGISTRY

    torch.manual_seed(1)
    recipe = small(name)
    module = recipe.build()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".bin":
        torch.save(module.state_dict(), path)
    else:
        save_file(module.state_dict(), path)
    monkeypatch.setitem(encoders.RECIPES, name, recipe)
    encoder = load_encoder(name, path, device=CPU)
    assert encoder.weights == weights_digest(module)
    kind: Any = MODEL_REGISTRY[recipe.lazyslide]
    theirs = kind.__new__(kind)
    theirs.model, theirs.num_prefix_tokens = module, module.num_prefix_tokens
    patches = torch.randint(60, 190, (3, 3, 224, 224), dtype=torch.uint8)
    transform = theirs.get_transform() if "h-optimus" in name else recipe.prepare
    prepared = torch.cat([transform(patch[None]) for patch in patches])
    with torch.inference_mode():
        ours = encoder.embed(patches)
        torch.testing.assert_close(ours, theirs.encode_image(prepared), rtol=1e-4, atol=1e-5)
    assert ours.shape == (3, recipe.width)


def old_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of today's Swin as timm named them when CTransPath was trained: downsampling ends a stage."""
    renamed = {}
    for name, value in weights.items():
        parts = name.split(".")
        if parts[0] == "layers" and parts[2] == "downsample":
            parts[1] = str(int(parts[1]) - 1)
        renamed[".".join(parts)] = value
    renamed["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    renamed["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    return renamed


def test_ctranspath_from_its_published_file(wsi: None, tmp_path: Path) -> None:
    torch.manual_seed(2)
    module = RECIPES["ctranspath"].build()
    torch.save({"model": old_names(module.state_dict())}, tmp_path / "ctranspath.pth")
    encoder = load_encoder("ctranspath", tmp_path / "ctranspath.pth", device=CPU)
    patches = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    with torch.inference_mode():
        features = encoder.embed(patches)
        torch.testing.assert_close(features, module(RECIPES["ctranspath"].prepare(patches)))
    assert features.shape == (2, 768)
    assert sum(parameter.numel() for parameter in module.parameters()) / 1e6 == pytest.approx(27.5, abs=0.05)


def test_weights_of_another_encoder_are_refused(wsi: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(small("virchow").build().state_dict(), tmp_path / "w.safetensors")
    monkeypatch.setitem(encoders.RECIPES, "virchow2", small("virchow2"))
    with pytest.raises(ExtractError, match=r"not the weights of virchow2: 1 missing \(reg_token\)"):
        load_encoder("virchow2", tmp_path / "w.safetensors", device=CPU)


def test_weights_stored_in_half_precision_compute_in_float32(
    wsi: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    module = small("uni").build()
    torch.save({name: value.half() for name, value in module.state_dict().items()}, tmp_path / "half.pt")
    monkeypatch.setitem(encoders.RECIPES, "uni", small("uni"))
    patches = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    with torch.inference_mode():
        features = load_encoder("uni", tmp_path / "half.pt", device=CPU).embed(patches)
        torch.testing.assert_close(features, module(small("uni").prepare(patches)), rtol=1e-2, atol=1e-2)
    assert features.dtype == torch.float32
