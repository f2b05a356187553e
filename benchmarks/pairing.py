"""Test AUC on the real cohort as a function of the share of patients whose RNA is used in training.

    python benchmarks/pairing.py --out runs/pairing
    python benchmarks/pairing.py --tasks odx --shares 1 .1 --set train.epochs=2 --set train.members=1 --out runs/quick

Every run has all slides, and the same folds; a smaller share of RNA is a part of every larger one. Which patients it is
depends on cv.seed: one draw, whatever the repeats (--set cv.seed=1 and another --out: another draw, other folds). Runs
are kept in --out and go on where they stopped. The table has mean ± sd of the fold test AUCs, and the gain over no RNA
with Nadeau and Bengio's corrected resampled t-test over the same folds; the picture is --out/pairing.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from momkd.cohort.dataset import load_data
from momkd.evaluation.statistics import corrected_resampled_t
from momkd.experiment import Experiment, load_experiment
from momkd.report.figures import save
from momkd.study.crossval import crossval

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TASKS = ("her2", "pr", "odx")
COLOURS = dict(zip(TASKS, ("#08519c", "#a63603", "#006d2c"), strict=True))


@dataclass(frozen=True, eq=False)
class Point:
    """A finished run: its share (0: no RNA), the patients whose RNA it used, and the test AUC of every fold."""

    share: float
    patients: int
    aucs: np.ndarray


def experiment_of(task: str, share: float, repeats: int, overrides: Sequence[str]) -> Experiment:
    """The example of a task with a share of its RNA; share 0 has none."""
    pairing = f"omics.share={share:g}" if share > 0 else "omics=null"
    name = EXAMPLES / f"tcga_brca_{task}.yaml"
    return load_experiment(name, [f"cv.repeats={repeats}", *overrides, pairing])


def point(task: str, share: float, options: argparse.Namespace) -> Point:
    """Cross-validate one task at one share, or read the finished run."""
    experiment = experiment_of(task, share, options.repeats, options.set)
    run = options.out / f"{task}-{share:g}-{options.repeats}"
    metrics = crossval(experiment, run, workers=options.workers).metrics
    tables = load_data(experiment).omics
    patients = max((len(table.values) for table in tables.values()), default=0)
    print(f"{run.name}: {metrics['test']['auc']['mean']:.3f}, {metrics['seconds']:.0f} s of training", flush=True)
    return Point(share, patients, np.array(metrics["test"]["auc"]["values"], dtype=float))


def rows(task: str, points: Sequence[Point]) -> list[str]:
    """A line of the table for each share; the first of ``points`` is the run without RNA."""
    without = points[0].aucs
    lines = []
    for one in points:
        gain, p = "–", "–"
        if one.share > 0:
            # Five folds: a test part has a quarter of the patients of the other four.
            test = corrected_resampled_t(one.aucs - without, test_train_ratio=0.25)
            gain = f"{(one.aucs - without).mean():+.3f}"
            p = "–" if test.p_value is None else f"{test.p_value:.3f}"
        auc = f"{one.aucs.mean():.3f} ± {one.aucs.std(ddof=1):.3f}"
        lines.append(f"| {task.upper()} | {100 * one.share:g} % | {one.patients} | {auc} | {gain} | {p} |")
    return lines


def draw(found: dict[str, list[Point]], target: Path) -> None:
    """Mean and sd of the fold AUCs at every share, one line a task, a faint point for every fold."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    shares = [one.share for one in next(iter(found.values()))]
    for number, (task, points) in enumerate(found.items()):
        x = np.arange(len(points)) + 0.08 * (number - (len(found) - 1) / 2)
        means = [one.aucs.mean() for one in points]
        sds = [one.aucs.std(ddof=1) for one in points]
        axes.errorbar(x, means, sds, color=COLOURS[task], marker="o", capsize=3, label=task.upper(), zorder=3)
        for place, one in zip(x, points, strict=True):
            axes.scatter(np.full(len(one.aucs), place), one.aucs, color=COLOURS[task], s=10, alpha=0.3, linewidths=0)
    axes.set_xticks(range(len(shares)), ["none" if share == 0 else f"{100 * share:g} %" for share in shares])
    axes.set(xlabel="patients whose RNA is used in training", ylabel="test AUC of a fold, from histology alone")
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False, ncols=len(found), loc="upper left")
    axes.margins(y=0.12)
    axes.set_title("mean ± sd over folds; faint points: folds", fontsize=10)
    save(figure, target)


def main() -> None:
    """Run what was asked for, print one Markdown table and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--shares", nargs="+", type=float, default=(1.0, 0.5, 0.25, 0.1))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="overrides of every experiment")
    parser.add_argument("--out", type=Path, default=Path("runs") / "pairing")
    options = parser.parse_args()
    shares = [0.0, *sorted(options.shares)]
    found = {task: [point(task, share, options) for share in shares] for task in options.tasks}
    lines = ["| task | share | patients with RNA | test AUC | gain over none | p |", "|---|---|---|---|---|---|"]
    lines += [line for task, points in found.items() for line in rows(task, points)]
    print("\n".join(["", *lines]))
    draw(found, options.out / "pairing.png")


if __name__ == "__main__":
    main()
