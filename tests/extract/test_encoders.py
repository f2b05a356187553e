"""Encoders by name: timm's, LazySlide's, the hub's cache, and who is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from momkd.errors import ExtractError
from momkd.extract.encode import choose_device, choose_precision, encode
from momkd.extract.encoders import Encoder, encoder_names, load_encoder
from momkd.extract.hub import from_hub

CPU = torch.device("cpu")


def test_timm_names_take_a_weight_file(tiny_weights: Path) -> None:
    encoder = load_encoder("test_vit", tiny_weights, device=CPU)
    assert (encoder.width, len(encoder.weights)) == (64, 64)
    assert "resized to 168 px, bicubic, antialiased, middle 160 px" in encoder.preparation
    with torch.inference_mode():
        assert encoder.embed(torch.zeros(2, 3, 256, 256, dtype=torch.uint8)).shape == (2, 64)


def test_a_classifier_in_the_file_is_left_out(tiny_weights: Path, tmp_path: Path) -> None:
    import timm

    module = timm.create_model("test_vit", pretrained=False, num_classes=7)
    torch.save(module.state_dict(), tmp_path / "w.pt")
    headless = timm.create_model("test_vit", pretrained=False, num_classes=0)
    headless.load_state_dict({k: v for k, v in module.state_dict().items() if not k.startswith("head.")})
    torch.save(headless.state_dict(), tmp_path / "h.pt")
    first, second = (load_encoder("test_vit", tmp_path / name, device=CPU).weights for name in ("w.pt", "h.pt"))
    assert first == second


def test_the_hubs_cache_is_enough(
    wsi: None, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository in the cache, as the hub's client lays it out, and no network."""
    import timm
    from huggingface_hub import constants

    snapshot = tmp_path / "models--momkd--tiny/snapshots/0123456789012345678901234567890123456789"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--momkd--tiny/refs").mkdir()
    (tmp_path / "models--momkd--tiny/refs/main").write_text(snapshot.name)
    (snapshot / "model.safetensors").write_bytes(tiny_weights.read_bytes())
    config = {
        "architecture": "test_vit",
        "num_classes": 0,
        "pretrained_cfg": timm.get_pretrained_cfg("test_vit").to_dict(),
    }
    (snapshot / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    ours, local = load_encoder("hf-hub:momkd/tiny", device=CPU), load_encoder("test_vit", tiny_weights, device=CPU)
    assert (ours.weights, ours.width) == (local.weights, 64)
    with pytest.raises(ExtractError, match="hf-hub:momkd/other: its weights are not in the cache.*--checkpoint FILE"):
        load_encoder("hf-hub:momkd/other", device=CPU)
    with pytest.raises(ExtractError, match=r"encoder uni2-h: its weights are not in the cache.*MahmoodLab/UNI2-h"):
        load_encoder("uni_v2", device=CPU)


def refusal() -> Exception:
    from huggingface_hub.errors import GatedRepoError

    return GatedRepoError("403", response=SimpleNamespace(headers={}, request=None, status_code=403))


class Gate:
    """Refuses until a token is stored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, good: str = "hf_good") -> None:
        self.stored, self.asked, self.good = "", 0, good
        monkeypatch.setattr("huggingface_hub.login", self.login)

    def login(self, token: str, add_to_git_credential: bool) -> None:
        assert not add_to_git_credential
        if not token.startswith("hf_"):
            raise ValueError("Invalid token")
        self.stored = token

    def make(self) -> str:
        if self.stored != self.good:
            raise refusal()
        return "model"

    def ask(self, token: str) -> Any:
        def asking(message: str) -> str:
            assert "ask for access at https://huggingface.co/owner/gated" in message
            self.asked += 1
            return token

        return asking


def test_a_gated_encoder_asks_for_the_token_once(wsi: None, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    assert from_hub("enc", "owner/gated", gate.make, gate.ask(" hf_good\n")) == "model"
    assert from_hub("enc", "owner/gated", gate.make, gate.ask("never")) == "model"
    assert gate.asked == 1


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "gives no access to its weights.*HF_TOKEN"),
        ("", "gives no access to its weights.*--checkpoint FILE"),
        ("hf_other", "gives no access"),
        ("typo", "does not know this token"),
    ],
)
def test_without_access_the_message_says_how_to_get_it(
    wsi: None, monkeypatch: pytest.MonkeyPatch, token: str | None, words: str
) -> None:
    gate = Gate(monkeypatch)
    with pytest.raises(ExtractError, match=f"encoder enc: .*{words}"):
        from_hub("enc", "owner/gated", gate.make, None if token is None else gate.ask(token))
    assert gate.asked == (token is not None)


def test_lazyslides_encoders_and_a_file_they_would_ignore(wsi: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from lazyslide_models import MODEL_REGISTRY, ImageModel
    from lazyslide_models.base import ModelTask

    class Mean(ImageModel):
        task, hf_url, encode_dim = ModelTask.vision, None, None

        def __init__(self, model_path: str | None = None, token: str | None = None) -> None:
            self.model = torch.nn.Linear(3, 3)

        def encode_image(self, image: torch.Tensor) -> torch.Tensor:
            return image.mean((2, 3))

    monkeypatch.setitem(MODEL_REGISTRY, "mean", Mean)
    encoder = load_encoder("mean", device=CPU)
    patches = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (patches.float().mean((2, 3)) / 255 - mean) / std
    torch.testing.assert_close(encoder.embed(patches), expected, rtol=1e-4, atol=1e-5)
    assert encoder.width == 3
    with pytest.raises(ExtractError, match="encoder mean: LazySlide loads its weights from the hub .*leave out --ch"):
        load_encoder("mean", Path("w.pt"), device=CPU)


def test_unknown_names_get_the_nearest(wsi: None) -> None:
    with pytest.raises(ExtractError, match="--encoder: 'virchow-2'; expected .*did you mean virchow2"):
        load_encoder("virchow-2", device=CPU)
    assert {"efficientnet-lite0", "uni", "uni2-h", "conch", "virchow2", "h-optimus-0", "ctranspath"} <= {
        *encoder_names()
    }


def constant(values: list[float]) -> Encoder:
    row = torch.tensor(values)
    return Encoder("const", len(values), "", "", lambda patches: row.expand(len(patches), -1))


def batches(n: int) -> list[np.ndarray]:
    return [np.zeros((n, 4, 4, 3), np.uint8)]


def test_features_that_cannot_be_stored_are_errors() -> None:
    options: dict[str, Any] = {"device": CPU, "precision": "float32"}
    assert encode(constant([1.0, 7e4]), batches(2), 2, dtype="float32", **options).tolist() == [[1.0, 7e4]] * 2
    with pytest.raises(ExtractError, match="features reach 70000, which float16 cannot hold.*--dtype float32"):
        encode(constant([1.0, -7e4]), batches(2), 2, dtype="float16", **options)
    with pytest.raises(ExtractError, match="NaN or infinite"):
        encode(constant([1.0, float("nan")]), batches(2), 2, dtype="float32", **options)


def test_too_little_memory_names_the_option() -> None:
    def full(patches: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    encoder = Encoder("big", 3, "", "", full)
    with pytest.raises(ExtractError, match="encoder big: a batch of 5 patches does not fit .*--batch-size"):
        encode(encoder, batches(5), 5, device=CPU, precision="float32", dtype="float16")


def test_devices_and_precision() -> None:
    assert choose_device("cpu") == CPU
    assert choose_precision("auto", CPU) == "float32"
    assert choose_precision("bf16", CPU) == "bf16"
    with pytest.raises(ExtractError, match="--device: 'cuba'"):
        choose_device("cuba")
