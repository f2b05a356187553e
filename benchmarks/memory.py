"""Peak resident memory of one training step, each model in a process of its own, without what was there before it.

python benchmarks/memory.py [--patches 15000]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

from common import Slide, cpu_name, our_step, plain_step


def peak_mib() -> float:
    """The most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print one table; with --model, measure one model in this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--patches", type=int, default=15000)
    parser.add_argument("--model", choices=["plain", "ours"])
    chosen = parser.parse_args()
    if chosen.model:
        # A small step first: libraries, compiled kernels and threads are not what is compared.
        make = plain_step if chosen.model == "plain" else our_step
        make(Slide(100))()
        slide = Slide(chosen.patches)
        before = peak_mib()
        step = make(slide)
        step()
        step()
        print(peak_mib() - before)
        return
    used = {}
    for model in ("plain", "ours"):
        command = [sys.executable, __file__, "--patches", str(chosen.patches), "--model", model]
        used[model] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    print(cpu_name())
    print(f"{'patches':>8} {'plain MiB':>10} {'ours MiB':>10} {'plain/ours':>10}")
    print(f"{chosen.patches:8d} {used['plain']:10.0f} {used['ours']:10.0f} {used['plain'] / used['ours']:10.2f}")


if __name__ == "__main__":
    main()
