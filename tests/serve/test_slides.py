"""How a slide is extracted for a student: its encoder, patches as wide as its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from momkd.errors import ServeError
from momkd.serve.settings import ServeSettings
from momkd.serve.slides import extraction_for
from momkd.student import FeatureGeometry

SETTINGS = ServeSettings(models={"her2": Path("her2")})


def test_patches_are_as_wide_as_the_students() -> None:
    found = extraction_for(FeatureGeometry(8, "uni2-h", patch_um=112.0), SETTINGS)
    assert found.encoder == "uni2-h"
    assert found.mpp * found.patch_size == pytest.approx(112.0)


def test_a_given_encoder_goes_first() -> None:
    settings = ServeSettings(models={"her2": Path("her2")}, encoder="conch", slide_mpp=0.25)
    found = extraction_for(FeatureGeometry(8, "uni2-h"), settings)
    assert (found.encoder, found.slide_mpp, found.mpp) == ("conch", 0.25, 0.5)


def test_without_an_encoder_nothing_is_guessed() -> None:
    with pytest.raises(ServeError, match="does not say which encoder"):
        extraction_for(FeatureGeometry(8), SETTINGS)
