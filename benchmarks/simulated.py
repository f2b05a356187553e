"""Test AUC on the simulated cohort at its default difficulty, and on its external sites: RNA, no RNA, baselines.

    python benchmarks/simulated.py --patients 300 --repeats 5 --out runs/simulated

The cohort is made once in --out. Each repeat is a comparison of its own, with its own splits (cv.seed), kept in --out;
runs go on where they stopped, and a repeat more is added to those that are there. Internal: mean ± sd of fold test AUCs
over all repeats, difference from momkd with the corrected resampled t-test. External: all students of a repeat vote;
mean over repeats of the AUC, and the 95 % DeLong interval of the first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from momkd.evaluation.comparison import compare_methods
from momkd.experiment import Experiment, load_experiment
from momkd.files import read_json
from momkd.simulator import SimulationSettings, simulate
from momkd.study.compare import compare
from momkd.study.external import evaluate
from momkd.study.run_folder import RunFolder

METHODS = ("momkd", "momkd-norna", "abmil", "linear", "soft-labels-linear")


def main() -> None:
    """Simulate, compare, evaluate, print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--external", type=int, default=150)
    parser.add_argument("--patches", type=int, default=256, help="median of a slide")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--set", nargs="*", default=[], dest="overrides")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--name", default="comparison", help="of the comparisons' folders in --out")
    parser.add_argument("--out", type=Path, default=Path("runs") / "simulated")
    options = parser.parse_args()
    cohort = options.out / "cohort"
    if not (cohort / "simulation.json").is_file():
        settings = SimulationSettings(
            patients=options.patients,
            external_patients=options.external,
            patches=options.patches,
            seed=options.seed,
        )
        simulate(settings, cohort)
    external = load_experiment(cohort / "external" / "experiment.yaml")
    folders = []
    for seed in range(options.repeats):
        overrides = [*([f"cv.seed={seed}"] if seed else []), *options.overrides]
        experiment = load_experiment(cohort / "experiment.yaml", overrides)
        folders.append(options.out / (options.name if seed == 0 else f"{options.name}-{seed}"))
        compare(experiment, options.methods, folders[-1], workers=options.workers)
        print(f"\n{len(folders)} of {options.repeats} repeats\n", flush=True)
        show(folders, options.methods, experiment, external)


def show(folders: list[Path], methods: list[str], experiment: Experiment, external: Experiment) -> None:
    """The table of the repeats that are done."""
    predictions = {}
    for method in methods:
        tables = [RunFolder(folder / method).predictions(experiment.task) for folder in folders]
        for repeat, table in enumerate(tables):
            table["repeat"] = repeat
        predictions[method] = pd.concat(tables, ignore_index=True)
    found = compare_methods(predictions, methods[0], experiment.task)
    print("| method | AUC | difference | p | validation AUC | external AUC | 95 % CI of the first repeat |")
    print("|---|---|---|---|---|---|---|")
    for row in found.itertuples():
        outside = [outside_of(folder, row.method, external) for folder in folders]
        val = [read_json(folder / row.method / "metrics.json")["val"]["auc"]["mean"] for folder in folders]
        first = outside[0]
        print(
            f"| {row.method} | {row.auc_mean:.3f} ± {row.auc_sd:.3f} | {row.difference:+.3f} | {row.p_value:.3f} "
            f"| {np.mean(val):.3f} | {np.mean([auc['pooled'] for auc in outside]):.3f} "
            f"| {first['ci_low']:.3f} – {first['ci_high']:.3f} |",
            flush=True,
        )


def outside_of(folder: Path, method: str, external: Experiment) -> dict[str, float]:
    """The external AUC of a run's students together."""
    out = folder / f"external-{method}"
    if not (out / "metrics.json").is_file():
        evaluate(folder / method, external, out)
    found: dict[str, float] = read_json(out / "metrics.json")["test"]["auc"]
    return found


if __name__ == "__main__":
    main()
