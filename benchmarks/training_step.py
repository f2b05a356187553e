"""Seconds of one training step against the plain torch-geometric model and the floor of matrix products.

python benchmarks/training_step.py [--patches 1000 5000 15000] [--repeats 7] [--threads 2]
python benchmarks/training_step.py --patches 1000 5000 15000 50000 --without-plain   # how the cost grows
python benchmarks/training_step.py --threads 1 --cpu-time     # where other processes share the cores
"""

from __future__ import annotations

import argparse
import time

import torch
from common import Slide, cpu_name, floor_step, in_turns, our_step, plain_step

from momkd.models.graph import Graph


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--patches", type=int, nargs="+", default=[1000, 5000, 15000])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--without-plain", action="store_true", help="plain needs 200 MB a thousand patches")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of this process's CPU, not of the wall")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    clock = time.process_time if chosen.cpu_time else time.perf_counter
    print(cpu_name())
    print("patches  plain ms   ours ms  floor ms  plain/ours  ours/floor  ours ms/1000 patches  graph ms, once")
    for patches in chosen.patches:
        slide = Slide(patches)
        steps = {"ours": our_step(slide), "floor": floor_step(patches, training=True)}
        steps |= {} if chosen.without_plain else {"plain": plain_step(slide)}
        steps["graph"] = lambda slide=slide: Graph.from_edges(slide.edges, len(slide.x))
        ms = {name: 1000 * seconds for name, seconds in in_turns(chosen.repeats, clock, **steps).items()}
        plain = ms.get("plain", float("nan"))
        print(
            f"{patches:7d} {plain:9.1f} {ms['ours']:9.1f} {ms['floor']:9.1f} {plain / ms['ours']:11.2f}"
            f" {ms['ours'] / ms['floor']:11.2f} {1000 * ms['ours'] / patches:21.1f} {ms['graph']:15.1f}"
        )


if __name__ == "__main__":
    main()
