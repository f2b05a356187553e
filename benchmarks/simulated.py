"""Test AUC on the simulated cohort at its default difficulty, and on its external sites: RNA, no RNA, baselines.

    python benchmarks/simulated.py --patients 300 --repeats 5 --out runs/simulated

The cohort is made once in --out; runs are kept there and go on where they stopped. Internal: mean ± sd of fold test
AUCs, difference from momkd with the corrected resampled t-test. External: all students of a run vote, 95 % DeLong.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from momkd.experiment import load_experiment
from momkd.files import read_json
from momkd.simulator import SimulationSettings, simulate
from momkd.study.compare import compare
from momkd.study.external import evaluate

METHODS = ("momkd", "momkd-norna", "abmil", "linear", "soft-labels-linear")


def main() -> None:
    """Simulate, compare, evaluate, print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--external", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--set", nargs="*", default=[], dest="overrides")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--name", default="comparison", help="of the comparison's folder in --out")
    parser.add_argument("--out", type=Path, default=Path("runs") / "simulated")
    options = parser.parse_args()
    cohort = options.out / "cohort"
    if not (cohort / "simulation.json").is_file():
        settings = SimulationSettings(patients=options.patients, external_patients=options.external, seed=options.seed)
        simulate(settings, cohort)
    overrides = [f"cv.repeats={options.repeats}", *options.overrides]
    experiment = load_experiment(cohort / "experiment.yaml", overrides)
    external = load_experiment(cohort / "external" / "experiment.yaml")
    found = compare(experiment, options.methods, options.out / options.name, workers=options.workers).table
    print("| method | AUC | difference | p | validation AUC | external AUC | 95 % CI |")
    print("|---|---|---|---|---|---|---|")
    for row in found.itertuples():
        run = options.out / options.name / row.method
        outside = options.out / options.name / f"external-{row.method}"
        if (outside / "metrics.json").is_file():
            metrics = read_json(outside / "metrics.json")
        else:
            metrics = evaluate(run, external, outside).metrics
        auc = metrics["test"]["auc"]
        val = read_json(run / "metrics.json")["val"]["auc"]["mean"]
        print(
            f"| {row.method} | {row.auc_mean:.3f} ± {row.auc_sd:.3f} | {row.difference:+.3f} | {row.p_value:.3f} "
            f"| {val:.3f} | {auc['pooled']:.3f} | {auc['ci_low']:.3f} – {auc['ci_high']:.3f} |"
        )


if __name__ == "__main__":
    main()
