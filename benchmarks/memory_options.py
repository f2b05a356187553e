"""What each option of the memory does to the memory, on a small simulated cohort: the diagnostics of the last epoch.

    python benchmarks/memory_options.py --out runs/memory_options

The published weights of the losses in a small network, three folds. The test AUC is there to show that a memory can be
better spread without predicting better; with 120 simulated patients it ranks nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from momkd.experiment import load_experiment
from momkd.simulator import SimulationSettings, simulate
from momkd.study.crossval import crossval

COHORT = SimulationSettings(patients=120, external_patients=8, patches=64, visibility=0.9, foci_share=0.4, signal=5.0)
SMALL = [
    "model.preset=published",
    "model.encoder.dim=64",
    "model.rna.hidden=64",
    "model.rna.dim=32",
    "model.memory.codes=8",
    "model.memory.dim=16",
    "model.classifier.hidden=32",
    "omics.select.method=variance",
    "omics.select.n=200",
    "train.epochs=15",
    "train.patience=15",
    "train.batch_size=8",
    "train.lr=1e-3",
    "cv.folds=3",
]
OPTIONS = (
    "update=gradient",
    "update=gradient lr_mult=10",
    "update=ema",
    "update=ema momentum=0.9",
    "update=hybrid",
    "update=queue",
    "update=fixed",
    "init=random",
    "init=random revive=2",
    "init=warmup",
    "codes=32",
    "orthogonality=none",
    "orthogonality=both",
    "offset=false",
    "learn_temperature=false",
    "decoupling.classifier=0",
    "decoupling.rna=1",
    "decoupling.slide=1",
)
COLUMNS = ("drift", "active", "perplexity", "within_cosine", "across_cosine", "attention_entropy")
BY_ORIGIN = tuple(f"{name}_{origin}" for name in ("margin", "auc") for origin in ("rna", "slide"))


def row(option: str, cohort: Path, out: Path, workers: int) -> str:
    """One line of the table: means over classes and folds at the last epoch."""
    overrides = [*SMALL, *(f"model.memory.{one}" for one in option.split())]
    run = out / option.replace(" ", "-")
    metrics = crossval(load_experiment(cohort / "experiment.yaml", overrides), run, workers=workers).metrics
    last = pd.DataFrame([pd.read_csv(path).iloc[-1] for path in sorted(run.glob("fold-*/history.csv"))])
    for name in ("active", "perplexity"):
        last[f"memory_{name}"] = last[[f"memory_{name}_0", f"memory_{name}_1"]].mean(axis=1)
    cells = [f"{last[f'memory_{name}'].mean():.2f}" for name in (*COLUMNS, *BY_ORIGIN)]
    return " | ".join([f"`{option}`", *cells, f"{metrics['test']['auc']['mean']:.2f}"])


def main() -> None:
    """Run every option and print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs") / "memory_options")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    cohort = options.out / "cohort"
    if not cohort.is_dir():
        simulate(COHORT, cohort)
    names = ("option", *COLUMNS, *BY_ORIGIN, "test AUC")
    lines = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|" + "---|" * len(names)]
    for option in OPTIONS:
        lines.append(f"| {row(option, cohort, options.out, options.workers)} |")
        print(lines[-1], flush=True)
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
