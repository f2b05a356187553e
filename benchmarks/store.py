"""An epoch over slides read from a cold packed store, against the same epoch with every bag in memory.

    python benchmarks/store.py

Synthetic bags (slides × patches × width, float16, KNN graph with k = 8) are packed once; then training steps go over
all slides, by turns from memory and from a store that the page cache has forgotten. The table has the median seconds
of both, their ratio, and the time that reading alone takes. Cold is what the system grants: dropping all caches where
that is allowed (root), else asking it to forget the store's files; the first line says which.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from common import cpu_name

from momkd.experiment import PRESETS, ModelSettings, TaskSettings, TrainSettings
from momkd.models.graph import Graph
from momkd.models.momkd import MoMKD
from momkd.models.outcome import Nominal
from momkd.slides.bag import Bag
from momkd.slides.packing import pack_store
from momkd.slides.store import DATA_FILES, FeatureStore
from momkd.slides.writer import write_bag
from momkd.student.threads import threads_for
from momkd.training.batches import training_steps
from momkd.training.samples import BagCache, FitData, PreparedBag, Sample


def make_store(folder: Path, slides: int, patches: int, width: int) -> list[str]:
    """Write synthetic slides and pack them; returns their names."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(patches)))
    coords = np.stack(np.divmod(np.arange(patches), side), axis=1) * 512
    files = {}
    for number in range(slides):
        name = f"slide-{number:04d}"
        features = rng.standard_normal((patches, width), dtype=np.float32)
        files[name] = folder / "features" / f"{name}.h5"
        write_bag(Bag(name, features, coords, 512.0, 0.5, "synthetic"), files[name], producer="benchmarks/store.py")
    pack_store(folder / "store", files, dtype="float16", graph_k=8)
    return list(files)


def forget(store: Path) -> str:
    """Make the page cache forget the store; says how."""
    for name in DATA_FILES:
        with (store / name).open("rb+") as file:
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    drop = Path("/proc/sys/vm/drop_caches")
    try:
        drop.write_text("3")
    except OSError:
        return "posix_fadvise"
    return "drop_caches"


def from_store(store: Path) -> BagCache:
    """Bags of a freshly opened store; nothing is kept between epochs but the maps."""
    opened = FeatureStore(store)

    def prepare(name: str) -> PreparedBag:
        graph = opened.graph(name, 8)
        if graph is None:
            raise RuntimeError(f"{name} has no graph")
        features = opened.tensor(name)
        return PreparedBag(features, Graph.from_edges(torch.from_numpy(graph), len(features)), mapped=True)

    return BagCache(prepare, budget_bytes=0)


def in_memory(store: Path, names: Sequence[str]) -> BagCache:
    """The same bags, copied into memory beforehand."""
    source = from_store(store)
    kept = {name: PreparedBag(source[name].features.clone(), source[name].graph) for name in names}
    cache = BagCache(kept.__getitem__, budget_bytes=1 << 60)
    for name in names:
        cache[name]
    return cache


def epoch(bags: BagCache, names: Sequence[str], model: MoMKD, settings: TrainSettings, width: int) -> float:
    """Seconds of one epoch of training steps over all slides."""
    samples = [Sample(name, name, number % 2) for number, name in enumerate(names)]
    data = FitData(samples, samples, bags, TaskSettings(label="y", classes=("a", "b")), width)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    started = time.perf_counter()
    for step in training_steps(samples, data, Nominal(2), settings, torch.device("cpu"), 1):
        optimiser.zero_grad()
        for batch in step.batches:
            losses = model(batch.bags, batch.lesson)
            losses.total.backward()
        optimiser.step()
    return time.perf_counter() - started


def read_all(store: Path, names: Sequence[str]) -> float:
    """Seconds that reading and packing alone take."""
    bags = from_store(store)
    started = time.perf_counter()
    for name in names:
        bags[name].features.float().sum()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=64)
    parser.add_argument("--patches", type=int, default=1500)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--preset", choices=["default", "published"], default="default")
    parser.add_argument("--folder", type=Path, help="where the store goes (default: a temporary folder)")
    options = parser.parse_args()
    model_settings = ModelSettings.model_validate(PRESETS[options.preset].get("model", {}))
    settings = TrainSettings(batch_size=options.batch_size, accelerator="cpu")
    torch.set_num_threads(threads_for(options.patches * options.batch_size))
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        names = make_store(Path(temporary), options.slides, options.patches, options.width)
        store = Path(temporary) / "store"
        size = sum((store / name).stat().st_size for name in DATA_FILES)
        memory = in_memory(store, names)
        model = MoMKD(options.width, Nominal(2), model_settings, {}).train()
        epoch(memory, names[: 2 * options.batch_size], model, settings, options.width)
        warm, cold, reading = [], [], []
        how = ""
        for _ in range(options.rounds):
            warm.append(epoch(memory, names, model, settings, options.width))
            how = forget(store)
            cold.append(epoch(from_store(store), names, model, settings, options.width))
            how = forget(store)
            reading.append(read_all(store, names))
    print(f"{cpu_name()}; cold by {how}\n")
    print(f"| {options.slides} slides × {options.patches} × {options.width}, float16 {size / 1e6:.0f} MB | s |")
    print("|---|---|")
    print(f"| epoch, bags in memory | {median(warm):.2f} |")
    print(f"| epoch, cold store | {median(cold):.2f} |")
    print(f"| reading the cold store alone | {median(reading):.2f} |")
    ratios = [c / w for c, w in zip(cold, warm, strict=True)]
    print(
        f"| ratio of the medians (of each round: {', '.join(f'{r:.2f}' for r in ratios)}) "
        f"| {median(cold) / median(warm):.3f} |"
    )


if __name__ == "__main__":
    main()
