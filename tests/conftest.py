"""Fixtures that every test may use."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import yaml

from momkd.experiment import TaskSettings
from momkd.slides.bag import Bag
from momkd.slides.writer import write_bag

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest_plugins = ["tests.stores", "tests.students"]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real cohorts, tool-made feature files and reference tensors beside the project."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder ../shared (real cohorts and reference tensors), which is not part of the project")
    return folder


TINY: dict[str, Any] = {
    "cohort": {"table": "cohort.csv", "group": "site"},
    "features": {"dir": "features"},
    "graph": {"k": 4},
    "omics": {"table": "rna.csv", "select": {"method": "variance", "n": 8}},
    "task": {"label": "status", "classes": ["negative", "positive"]},
    "model": {
        "encoder": {"dim": 8},
        "rna": {"hidden": 8, "dim": 6},
        "memory": {"codes": 2, "dim": 4},
        "classifier": {"hidden": 6},
    },
    "train": {
        "epochs": 3,
        "patience": 3,
        "lr": 5e-3,
        "batch_size": 8,
        "members": 2,
        "threads": 1,
        "accelerator": "cpu",
    },
    "cv": {"folds": 3, "validation": 0.25},
}

CohortMaker = Callable[..., Path]


@pytest.fixture(scope="session")
def make_cohort() -> CohortMaker:
    """A function (folder, patients=36, seed=0, prefix="P", signal=1.5) that writes a tiny paired cohort.

    It returns the experiment file. Some patients have two slides; class, RNA and one patch in four go together.
    """

    def make(folder: Path, patients: int = 36, seed: int = 0, prefix: str = "P", signal: float = 1.5) -> Path:
        rng = np.random.default_rng(seed)
        rows, rna = [], {}
        for i in range(patients):
            patient, label = f"{prefix}{i:03d}", i % 2
            rna[patient] = rng.normal(size=12).round(4) + label * (np.arange(12) < 4) * signal
            for j in range(1 + (i % 5 == 0)):
                slide = f"{patient}-S{j}"
                _write_slide(folder / "features" / f"{slide}.h5", slide, rng, label * signal)
                rows.append([patient, slide, f"site-{i % 9}", ["negative", "positive"][label]])
        pd.DataFrame(rows, columns=["patient_id", "slide_id", "site", "status"]).to_csv(
            folder / "cohort.csv", index=False
        )
        table = pd.DataFrame.from_dict(rna, orient="index", columns=[f"G{g:02d}" for g in range(12)])
        table.rename_axis("patient_id").to_csv(folder / "rna.csv")
        (folder / "experiment.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
        return folder / "experiment.yaml"

    return make


@pytest.fixture(scope="session")
def add_cnv() -> Callable[[Path], list[str]]:
    """A function (experiment file) that puts a second omics table beside the first, and returns the overrides for both.

    The first six patients are in rna only, the last six in cnv only; the file of the first table is cut to that.
    """

    def add(file: Path) -> list[str]:
        rna = pd.read_csv(file.parent / "rna.csv", index_col="patient_id")
        cnv = (0.5 * rna.iloc[6:, :7] + np.random.default_rng(1).normal(size=(len(rna) - 6, 7))).round(4)
        cnv.set_axis([f"C{g}" for g in range(7)], axis=1).T.rename_axis("segment").to_csv(file.parent / "cnv.csv")
        rna.iloc[:-6].to_csv(file.parent / "rna.csv")
        return [
            "omics={rna: {table: rna.csv, select: {method: variance, n: 8}}, cnv: {table: cnv.csv, scale: standard}}",
        ]

    return add


def _write_slide(target: Path, slide: str, rng: np.random.Generator, shift: float) -> None:
    n = int(rng.integers(9, 16))
    features = rng.normal(size=(n, 6)).astype(np.float32)
    features[: n // 4, 0] += 2.0 * shift
    grid = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2)[:n] * 512
    bag = Bag(slide, features, grid, 512.0, 0.25, "toy", {}, "momkd", target)
    write_bag(bag, target, dtype="float32", producer="tests")


GRADES = ("low", "medium", "high")
TASKS = {
    "classification": TaskSettings(label="type", classes=GRADES),
    "ordinal": TaskSettings(type="ordinal", label="grade", classes=GRADES),
    "continuous": TaskSettings(type="continuous", label="score"),
    "survival": TaskSettings(type="survival", label="days", event="died"),
}


@pytest.fixture(scope="session")
def predicted() -> Callable[..., tuple[TaskSettings, pd.DataFrame]]:
    """A function (kind, n=60, repeats=2, folds=3) that returns a task and what a cross-validation of it predicts."""

    def make(kind: str, n: int = 60, repeats: int = 2, folds: int = 3) -> tuple[TaskSettings, pd.DataFrame]:
        rng = np.random.default_rng(0)
        hidden = rng.normal(size=n)
        died = (rng.random(n) < 0.6).astype(int)
        parts = []
        for repeat in range(repeats):
            fold = rng.permutation(n) % folds
            for role, numbers in (("test", fold), ("val", (fold + 1) % folds)):
                seen = hidden + rng.normal(size=n)
                frame = pd.DataFrame(
                    {"repeat": repeat, "fold": numbers, "role": role, "patient_id": [f"P{i:03d}" for i in range(n)]}
                )
                if kind == "continuous":
                    frame["label"], frame["predicted"] = hidden, 0.5 * seen
                elif kind == "survival":
                    frame["time"], frame["event"], frame["risk"] = np.exp(-hidden), died, seen
                else:
                    odds = np.exp(-((seen[:, None] - np.array([-1.1, 0.0, 1.1])) ** 2))
                    frame["label"] = np.array(GRADES)[np.argsort(np.argsort(hidden)) * 3 // n]
                    frame[[f"prob_{name}" for name in GRADES]] = odds / odds.sum(axis=1, keepdims=True)
                parts.append(frame)
        table = pd.concat(parts, ignore_index=True)
        keep = (table["role"] == "test") | (table["patient_id"].str[-1].astype(int) < 5)
        return TASKS[kind], table[keep].reset_index(drop=True)

    return make


# Small slides, and an encoder small enough for tests; whatever needs the extra asks for the fixture wsi.
PAPER, PINK, PURPLE = (243, 241, 244), (226, 150, 190), (110, 60, 140)

WriteSlide = Callable[..., Path]


@pytest.fixture(scope="session")
def wsi() -> None:
    """Skip where the extra is not installed."""
    if find_spec("lazyslide") is None or find_spec("openslide") is None:
        pytest.skip("needs the extra wsi: pip install 'momkd[wsi]'")


Paint = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def paint() -> Paint:
    """paint(height, width, boxes, seed=0): paper (height, width, 3) uint8 with boxes (x, y, w, h) of tissue on it."""
    return _paint


def _paint(height: int, width: int, boxes: list[tuple[int, int, int, int]], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.empty((height, width, 3), np.uint8)
    image[:] = PAPER
    for x, y, w, h in boxes:
        nuclei = np.kron(rng.random((h // 8 + 1, w // 8 + 1)) < 0.35, np.ones((8, 8), bool))[:h, :w]
        image[y : y + h, x : x + w] = np.where(nuclei[..., None], PURPLE, PINK)
    noise = rng.integers(-6, 7, image.shape, dtype=np.int16)
    return np.clip(image.astype(np.int16) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def write_slide(wsi: None) -> WriteSlide:
    """A function (path, image, mpp=None, levels=1) that writes a tiled pyramidal TIFF which OpenSlide opens."""

    def write(path: Path, image: np.ndarray, mpp: float | None = None, levels: int = 1) -> Path:
        import tifffile

        options: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "compression": "deflate"}
        if mpp is not None:
            options |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
        path.parent.mkdir(parents=True, exist_ok=True)
        with tifffile.TiffWriter(path) as file:
            for level in range(levels):
                smaller = image[:: 4**level, :: 4**level]
                file.write(smaller, subfiletype=int(level > 0), metadata=None, **options)
        return path

    return write


@pytest.fixture(scope="session")
def tiny_weights(wsi: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of timm's test_vit (64 features, 0.3 million parameters), its weights random."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    module = timm.create_model("test_vit", pretrained=False, num_classes=0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(module.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without these a Chromium that runs as root does not start, and one without a network keeps asking for it.
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        running = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield running
        running.close()
