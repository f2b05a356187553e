"""Seconds of one training step against the plain torch-geometric model and the floor of matrix products.

python benchmarks/training_step.py [--patches 1000 5000 15000] [--repeats 7]
"""

from __future__ import annotations

import argparse

from common import Slide, cpu_name, floor_step, in_turns, our_step, plain_step


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--patches", type=int, nargs="+", default=[1000, 5000, 15000])
    parser.add_argument("--repeats", type=int, default=7)
    chosen = parser.parse_args()
    print(cpu_name())
    print(f"{'patches':>8} {'plain ms':>9} {'ours ms':>9} {'floor ms':>9} {'plain/ours':>10} {'ours/floor':>10}")
    for patches in chosen.patches:
        slide = Slide(patches)
        seconds = in_turns(
            chosen.repeats, plain=plain_step(slide), ours=our_step(slide), floor=floor_step(patches, training=True)
        )
        plain, ours, floor = (1000 * seconds[name] for name in ("plain", "ours", "floor"))
        print(f"{patches:8d} {plain:9.1f} {ours:9.1f} {floor:9.1f} {plain / ours:10.2f} {ours / floor:10.2f}")


if __name__ == "__main__":
    main()
