"""momkd extract as a user meets it: files, a summary, an exit code, and words where something is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from momkd.cli import extract as verb
from momkd.cli.app import run
from momkd.extract import faults
from momkd.slides.readers import inspect_bag

needs_wsi = pytest.mark.skipif(
    faults.find_spec("lazyslide") is None, reason="needs the extra wsi: pip install 'momkd[wsi]'"
)


@pytest.fixture
def tile(tmp_path: Path) -> Path:
    """A plain image that is tissue all over."""
    from PIL import Image

    rng = np.random.default_rng(0)
    nuclei = np.kron(rng.random((50, 50)) < 0.35, np.ones((8, 8), bool))
    path = tmp_path / "in/tile.png"
    path.parent.mkdir()
    Image.fromarray(np.where(nuclei[..., None], (110, 60, 140), (226, 150, 190)).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    """Options of an encoder that loads in a moment."""
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "w.pt")
    return ["--encoder", "test_vit", "--checkpoint", str(tmp_path / "w.pt"), "--patch-size", "128", "--device", "cpu"]


def test_help_names_units_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["extract", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "momkd extract slides/ --out features" in text
    assert "µm per pixel of the patches: 0.5 is 20×" in text


def test_without_the_extra_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(faults, "find_spec", lambda name: None if name == "lazyslide" else object())
    assert run(["extract", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "lazyslide not installed; expected the extra wsi → pip install 'momkd[wsi]'" in capsys.readouterr().err


def test_wrong_options_are_said_at_once_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["extract", str(tmp_path), "--out", str(tmp_path / "out"), "--mpp", "20.5", "--dtype", "int8"]) == 1
    err = capsys.readouterr().err
    assert "2 problems" in err
    assert "--mpp: 20.5; expected µm per pixel" in err
    assert not (tmp_path / "out").exists()


@needs_wsi
def test_exit_code_tells_whether_every_slide_is_there(
    tile: Path, small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["extract", str(tile.parent), "--out", str(tmp_path / "out"), *small]
    assert run(arguments) == 1
    out, err = capsys.readouterr()
    assert "tile: failed: no µm per pixel in its metadata" in err
    assert "give --slide-mpp 0.5" in err
    assert "0 slides made, 0 already complete, 1 failed" in out
    assert run([*arguments, "--slide-mpp", "0.5", "--k", "4"]) == 1
    assert "was made with other settings (graph_k: None then, 4 now)" in capsys.readouterr().err
    assert run([*arguments, "--slide-mpp", "0.5"]) == 0
    assert "1 slides made" in capsys.readouterr().out
    assert run([*arguments, "--slide-mpp", "0.5"]) == 0
    assert "0 slides made, 1 already complete" in capsys.readouterr().out
    info = inspect_bag(tmp_path / "out/tile.h5")
    assert (info.n_patches, info.width, info.encoder, info.mpp) == (9, 64, "test_vit", 0.5)
    # What was made is what the other verbs read.
    assert run(["inspect", str(tmp_path / "out/tile.h5")]) == 0
    assert run(["graph", str(tmp_path / "out"), "--k", "4"]) == 0
    assert run([*arguments, "--slide-mpp", "0.5"]) == 0
    assert "1 already complete" in capsys.readouterr().out


@needs_wsi
@pytest.mark.parametrize("terminal", [True, False])
def test_only_a_terminal_is_asked_for_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, terminal: bool) -> None:
    given: list[Callable[[str], str] | None] = []
    report = SimpleNamespace(made=(), unchanged=(), failed={}, held={})

    def extract(*_: object, ask_token: Callable[[str], str] | None, **__: object) -> SimpleNamespace:
        given.append(ask_token)
        return report

    monkeypatch.setattr(verb, "extract_slides", extract)
    monkeypatch.setattr(verb.sys, "stdin", SimpleNamespace(isatty=lambda: terminal))
    assert run(["extract", str(tmp_path), "--out", str(tmp_path)]) == 0
    assert (given[0] is not None) == terminal
