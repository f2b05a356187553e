"""What Ray costs: the folds of a cross-validation as Ray tasks against the same folds in local processes.

    python benchmarks/places.py --experiment examples/tcga_brca_odx.yaml --repeats 5 --workers 2

Each place does all folds --times times, in turns; the median seconds and their ratio. A Ray runs already, as on a
cluster; how long one takes to start is told beside it. Needs the extra cluster.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import ray

from momkd.experiment import load_experiment
from momkd.parallel import Place
from momkd.study.crossval import crossval


def main() -> None:
    """Time both places, print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", type=Path, default=Path("examples") / "tcga_brca_odx.yaml")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], dest="overrides")
    options = parser.parse_args()
    experiment = load_experiment(options.experiment, [f"cv.repeats={options.repeats}", *options.overrides])
    folds = experiment.cv.folds * experiment.cv.repeats
    seconds: dict[str, list[float]] = {"local": [], "ray": []}
    aucs, start = {}, 0.0
    for _ in range(options.times):
        for on, times in seconds.items():
            if on == "ray":
                begun = time.perf_counter()
                ray.init(num_cpus=options.workers, include_dashboard=False, log_to_driver=False, logging_level=40)
                start = time.perf_counter() - begun
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                result = crossval(experiment, Path(folder) / "run", workers=options.workers, place=Place(on))
                times.append(time.perf_counter() - started)
                aucs[on] = result.metrics["test"]["auc"]["mean"]
            ray.shutdown()
    local, cluster = (statistics.median(seconds[on]) for on in ("local", "ray"))
    print("| folds | processes | local, s | Ray, s | Ray / local | start of a Ray, s | AUC local | AUC Ray |")
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| {folds} | {options.workers} | {local:.1f} | {cluster:.1f} | {cluster / local:.3f} | {start:.1f} "
        f"| {aucs['local']:.6f} | {aucs['ray']:.6f} |"
    )


if __name__ == "__main__":
    main()
