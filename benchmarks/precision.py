"""A training step of ours in float32, under ``precision: bf16`` as this machine gets it, and with bfloat16 forced.

python benchmarks/precision.py [--patches 5000] [--repeats 7]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from common import Slide, cpu_name, in_turns, our_step

from momkd.models import products


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--patches", type=int, nargs="+", default=[5000])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="seconds of this process's CPU, not of the wall")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    fast = products.bfloat16_is_fast
    print(f"{cpu_name()}, bfloat16 products {'are' if fast() else 'are not'} faster here")

    def forced(step: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            products.bfloat16_is_fast = lambda: True
            step()
            products.bfloat16_is_fast = fast

        return run

    print(f"{'patches':>8} {'float32 ms':>11} {'bf16 ms':>9} {'forced ms':>10} {'fp32/bf16':>10} {'fp32/forced':>12}")
    clock = time.process_time if chosen.cpu_time else time.perf_counter
    for patches in chosen.patches:
        slide = Slide(patches)
        steps = {"float32": our_step(slide), "bf16": our_step(slide, bf16=True)}
        steps["forced"] = forced(our_step(slide, bf16=True))
        ms = {name: 1000 * seconds for name, seconds in in_turns(chosen.repeats, clock, **steps).items()}
        ratios = f"{ms['float32'] / ms['bf16']:10.2f} {ms['float32'] / ms['forced']:12.2f}"
        print(f"{patches:8d} {ms['float32']:11.1f} {ms['bf16']:9.1f} {ms['forced']:10.1f} {ratios}")


if __name__ == "__main__":
    main()
