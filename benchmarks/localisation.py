"""Do the maps show what is informative? AUC of each for the informative patches of a simulated cohort's test slides.

    python benchmarks/simulated.py --patients 300 --repeats 1 --methods momkd momkd-norna abmil --out runs/simulated
    python benchmarks/localisation.py --out runs/simulated

It reads the runs of the first command. Influence has a sign, and a patch may be informative for either class: its size
is judged. Deletion and insertion: momkd explain --faithfulness.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from momkd.explain.faithful import localisation_auc
from momkd.simulator.truth import Truth, read_truth
from momkd.slides.readers import read_bag
from momkd.student.reasons import explain
from momkd.study.predict import load_model
from momkd.study.run_folder import RunFolder


def rows(run: RunFolder, cohort: Path, truth: Truth) -> Iterator[dict[str, object]]:
    """The AUCs of every test slide, by the student of its fold."""
    for fold in run.done_folds():
        folder = run.fold(fold)
        ensemble = load_model(folder)
        slides = pd.read_csv(folder / "slides.csv", dtype={"slide_id": str})
        for slide_id in slides.loc[slides["role"] == "test", "slide_id"]:
            informative, _ = truth.patches(slide_id)
            found = explain(ensemble.students, read_bag(cohort / "features" / f"{slide_id}.h5"))
            maps = {name: np.abs(values) for name, values in found.influence.items()}
            maps = {"|influence|": next(iter(maps.values()))} if maps else {}
            maps |= {"attention": found.attention} if found.attention is not None else {}
            maps |= {"evidence": found.evidence} if found.evidence is not None else {}
            for name, values in maps.items():
                yield {"map": name, "fold": fold.name, "auc": localisation_auc(values, informative)}


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["momkd", "momkd-norna", "abmil"])
    parser.add_argument("--name", default="comparison", help="of the comparison's folder in --out")
    parser.add_argument("--out", type=Path, default=Path("runs") / "simulated")
    options = parser.parse_args()
    cohort = options.out / "cohort"
    truth = read_truth(cohort / "truth.npz")
    print("| method | map | slides | mean AUC ± sd of slides | median |")
    print("|---|---|---|---|---|")
    for method in options.methods:
        table = pd.DataFrame(rows(RunFolder(options.out / options.name / method), cohort, truth))
        for name, own in table.groupby("map", sort=False):
            auc = own["auc"].dropna()
            print(f"| {method} | {name} | {len(auc)} | {auc.mean():.3f} ± {auc.std():.3f} | {auc.median():.3f} |")


if __name__ == "__main__":
    main()
