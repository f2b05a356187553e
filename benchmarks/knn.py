"""Milliseconds of the KNN graph (k = 8) of grid slides, and how they grow against N log N.

python benchmarks/knn.py [--patches 10000 100000 1000000] [--repeats 5]
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
from common import cpu_name, in_turns

from momkd.slides.graph import knn_edges


def tissue(n_patches: int) -> np.ndarray:
    """Level-0 positions of patches of 256 px on the disc of a grid: (P, 2) int64."""
    side = math.ceil(2.3 * math.sqrt(n_patches / math.pi)) + 4
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    nearest = np.argsort(((grid - side / 2) ** 2).sum(1), kind="stable")[:n_patches]
    return 256 * grid[np.sort(nearest)]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--patches", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    print(cpu_name())
    print(f"{'patches':>9} {'ms':>9} {'ns / (N log2 N)':>16}")
    for patches in chosen.patches:
        coords = tissue(patches)
        seconds = in_turns(chosen.repeats, time.perf_counter, knn=lambda: knn_edges(coords, 8))["knn"]  # noqa: B023 - called at once
        print(f"{patches:9d} {1000 * seconds:9.1f} {1e9 * seconds / (patches * math.log2(patches)):16.1f}")


if __name__ == "__main__":
    main()
