"""Seconds of histology-only inference of a slide against the plain torch-geometric model and the floor of products.

python benchmarks/inference.py [--patches 1000 5000 15000] [--repeats 7]
python benchmarks/inference.py --giant 200000      # one slide, float16 features mapped from a file, peak memory
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import D, Plain, Slide, cpu_name, floor_step, grid_edges, in_turns, our_model

from momkd.models.graph import Graph
from momkd.models.packed import PackedBags


def compare(patches: int, repeats: int, clock: Callable[[], float]) -> None:
    """Print one row."""
    slide = Slide(patches)
    student, plain = our_model().student.eval(), Plain().eval()
    with torch.no_grad():
        seconds = in_turns(
            repeats,
            clock,
            plain=lambda: plain.predict(slide.x, slide.edges),
            ours=lambda: student(slide.bags),
            floor=floor_step(patches, training=False),
        )
    ms = {name: 1000 * value for name, value in seconds.items()}
    ratios = f"{ms['plain'] / ms['ours']:10.2f} {ms['ours'] / ms['floor']:10.2f}"
    print(f"{patches:8d} {ms['plain']:9.1f} {ms['ours']:9.1f} {ms['floor']:9.1f} {ratios}")


def giant(patches: int) -> None:
    """Print the time and the peak resident memory of one huge slide."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.f16"
        stored = np.memmap(path, np.float16, "w+", shape=(patches, D))
        generator = np.random.default_rng(0)
        for first in range(0, patches, 4096):
            stored[first : first + 4096] = generator.standard_normal((min(4096, patches - first), D), np.float32)
        del stored
        features = torch.from_numpy(np.memmap(path, np.float16, "c", shape=(patches, D)))
        bags = PackedBags.pack([features], [Graph.from_edges(grid_edges(patches), patches)])
        student = our_model().student.eval()
        start = time.perf_counter()
        with torch.no_grad():
            out = student(bags)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{patches} patches: {seconds:.1f} s, peak memory of the process {peak:.2f} GiB, logits {out.logits.tolist()}"
    )


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--patches", type=int, nargs="+", default=[1000, 5000, 15000])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="seconds of this process's CPU, not of the wall")
    parser.add_argument("--giant", type=int)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    clock = time.process_time if chosen.cpu_time else time.perf_counter
    print(cpu_name())
    if chosen.giant:
        giant(chosen.giant)
        return
    print(f"{'patches':>8} {'plain ms':>9} {'ours ms':>9} {'floor ms':>9} {'plain/ours':>10} {'ours/floor':>10}")
    for patches in chosen.patches:
        compare(patches, chosen.repeats, clock)


if __name__ == "__main__":
    main()
