"""Test AUC on the real cohort, five site-disjoint folds: each preset with RNA in training and without.

    python benchmarks/tcga_brca.py --presets default --repeats 5
    python benchmarks/tcga_brca.py --presets published --repeats 1 --features bags

Runs are kept in --out and go on where they stopped. The table has the mean over folds and repeats, its sd over folds,
and the gain of RNA with Nadeau and Bengio's corrected resampled t-test over the same folds.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np

from momkd.evaluation.statistics import corrected_resampled_t
from momkd.experiment import load_experiment
from momkd.study.crossval import crossval

HERE = Path(__file__).resolve().parent
TASKS = ("her2", "pr", "odx")


def fold_aucs(task: str, features: str, preset: str, rna: bool, repeats: int, out: Path, workers: int) -> np.ndarray:
    """Test AUC of every fold, in the order of repeats and folds."""
    name = f"tcga_brca_{task}.yaml" if features == "slide" else f"tcga_brca_bags_{task}.yaml"
    overrides = [f"model.preset={preset}", f"cv.repeats={repeats}"]
    overrides += [] if rna else ["omics=null"]
    run = out / f"{features}-{task}-{preset}-{'rna' if rna else 'norna'}-{repeats}"
    experiment = load_experiment(HERE.parent / "examples" / name, overrides)
    metrics = crossval(experiment, run, workers=workers).metrics
    seconds = metrics["seconds"]
    print(f"{run.name}: {metrics['test']['auc']['mean']:.3f}, {seconds:.0f} s of training", flush=True)
    return np.array(metrics["test"]["auc"]["values"], dtype=float)


def main() -> None:
    """Run what was asked for and print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--presets", nargs="+", default=["default"])
    parser.add_argument("--features", nargs="+", default=["slide"], choices=["slide", "bags"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs") / "tcga_brca")
    options = parser.parse_args()
    lines = ["| features | preset | task | with RNA | without RNA | gain | p |", "|---|---|---|---|---|---|---|"]
    for features, preset, task in product(options.features, options.presets, options.tasks):
        with_rna, without = (
            fold_aucs(task, features, preset, rna, options.repeats, options.out, options.workers)
            for rna in (True, False)
        )
        # Five folds: a test part has a quarter of the patients of the other four.
        test = corrected_resampled_t(with_rna - without, test_train_ratio=0.25)
        cells = [f"{a.mean():.3f} ± {a.std(ddof=1):.3f}" for a in (with_rna, without)]
        gain = f"{(with_rna - without).mean():+.3f}"
        p = "–" if test.p_value is None else f"{test.p_value:.3f}"
        lines.append(f"| {features} | {preset} | {task.upper()} | {cells[0]} | {cells[1]} | {gain} | {p} |")
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    main()
