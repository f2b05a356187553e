"""Write the two tables of this example beside it, in made/: slides.csv to extract, cohort.csv to train on.

    python examples/brca_m2c/tables.py

A tile of 232 µm at .5 µm per pixel counts as a slide. Patients have one or two; labels are the patient's.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "shared" / "data" / "brca_m2c"
MPP = 0.5


def main(data: Path = DATA, work: Path = HERE / "made") -> None:
    """Read tiles.csv, write the tables."""
    tiles = pd.read_csv(data / "tiles.csv", dtype=str, keep_default_na=False)
    names = [Path(image).stem for image in tiles["image"]]
    slides = pd.DataFrame({"file": [str(data / image) for image in tiles["image"]], "slide_id": names, "mpp": MPP})
    cohort = tiles[["patient_id", "HER2", "PR", "ER", "ODX"]].assign(slide_id=names)
    cohort["site"] = tiles["patient_id"].str[5:7]
    work.mkdir(parents=True, exist_ok=True)
    slides.to_csv(work / "slides.csv", index=False)
    cohort.to_csv(work / "cohort.csv", index=False)


if __name__ == "__main__":
    main()
