"""Slides a second of `momkd predict` against its bare model on bags that lie prepared in memory, in turns.

    python benchmarks/predict.py [--slides 1000] [--patches 1000] [--width 1536]

The student is that of the preset default (six members); feature files are momkd's layout, with coordinates.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import cpu_name

from momkd.experiment import ModelSettings, TaskSettings
from momkd.experiment.presets import PRESETS
from momkd.slides.bag import Bag
from momkd.slides.normalize import make_normalizer
from momkd.slides.readers import read_bag
from momkd.slides.writer import write_bag
from momkd.student import FeatureGeometry, StudentCard, StudentPredictor, save_student
from momkd.study.predict import load_model, predict


def write_slides(folder: Path, slides: int, patches: int, width: int) -> list[Path]:
    """Feature files of random patches on a grid."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(patches)))
    coords = np.stack([np.arange(patches) % side, np.arange(patches) // side], 1) * 256
    paths = []
    for number in range(slides):
        features = rng.standard_normal((patches, width), np.float32)
        bag = Bag(f"S{number:04d}", features, coords, 256.0, 0.5, "random")
        paths.append(folder / f"S{number:04d}.h5")
        write_bag(bag, paths[-1], producer="benchmark")
    return paths


def write_student(folder: Path, width: int) -> None:
    """A student of the preset default, its weights random."""
    torch.manual_seed(0)
    settings = ModelSettings.model_validate(PRESETS["default"]["model"])
    task = TaskSettings(label="label", classes=("negative", "positive"))
    card = StudentCard(task, FeatureGeometry(width, "random"), 8, "none", settings, 0.5, members=6, programmes=("rna",))
    save_student(StudentPredictor([card.network() for _ in range(6)], make_normalizer("none"), card), folder)


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=1000)
    parser.add_argument("--patches", type=int, default=1000)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--parts", type=int, default=10, help="the slides are gone through in so many turns")
    options = parser.parse_args()
    print(cpu_name())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_student(folder / "student", options.width)
        (folder / "features").mkdir()
        paths = write_slides(folder / "features", options.slides, options.patches, options.width)
        (student,) = load_model(folder / "student").students
        whole = bare = 0.0
        student.predict(read_bag(paths[0]))
        for part in np.array_split(np.arange(len(paths)), options.parts):
            own = [paths[i] for i in part]
            prepared = [(path.stem, student.prepare(read_bag(path))) for path in own]
            for _, bags in prepared:
                _ = bags.graph  # made when it is first asked for
            start = time.perf_counter()
            for slide_id, bags in prepared:
                student.score(slide_id, bags)
            bare += time.perf_counter() - start
            del prepared
            start = time.perf_counter()
            predict(folder / "student", own)
            whole += time.perf_counter() - start
    n = len(paths)
    print(
        f"{n} slides of {options.patches} × {options.width}: predict {n / whole:.1f} slides/s, bare model "
        f"{n / bare:.1f} slides/s, ratio {bare / whole:.2f}"
    )


if __name__ == "__main__":
    main()
