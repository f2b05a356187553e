"""Real pixels to prediction: examples/brca_m2c on some of its tiles, from the images to the patches behind a score."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest

from momkd.experiment import load_experiment
from momkd.explain.run import explain_slides
from momkd.study.crossval import crossval
from momkd.study.predict import predict

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "brca_m2c"


def write_tables(data: Path, work: Path) -> None:
    """What the example's script writes."""
    spec = importlib.util.spec_from_file_location("tables", EXAMPLE / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(data, work)


@pytest.fixture(scope="module")
def work(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_tables(shared / "data" / "brca_m2c", folder)
    return folder


def test_the_tables_name_every_tile_and_patient(work: Path) -> None:
    slides, cohort = pd.read_csv(work / "slides.csv"), pd.read_csv(work / "cohort.csv")
    assert len(slides) == len(cohort) == 120
    assert slides["slide_id"].tolist() == cohort["slide_id"].tolist()
    assert all(Path(file).is_file() for file in slides["file"])
    assert cohort["patient_id"].nunique() == 113
    assert (slides["mpp"] == 0.5).all()


@pytest.mark.parametrize("name", ["odx", "er"])
def test_the_experiments_are_valid(name: str) -> None:
    experiment = load_experiment(EXAMPLE / f"{name}.yaml")
    assert experiment.task.label == name.upper()
    assert experiment.omics


@pytest.mark.slow
def test_from_pixels_to_the_patches_behind_a_score(wsi: None, shared: Path, work: Path, tmp_path: Path) -> None:
    from momkd.extract.settings import ExtractSettings
    from momkd.extract.slides import extract_slides

    cohort = pd.read_csv(work / "cohort.csv")
    paired = pd.read_csv(shared / "data" / "brca_m2c" / "rna.csv.gz", usecols=["patient_id"])["patient_id"]
    part = cohort[cohort["patient_id"].isin(paired)].groupby("ODX").head(14)
    part.to_csv(tmp_path / "cohort.csv", index=False)
    slides = pd.read_csv(work / "slides.csv")
    slides[slides["slide_id"].isin(part["slide_id"])].to_csv(tmp_path / "slides.csv", index=False)
    settings = ExtractSettings(tissue="none", patch_size=112, graph_k=8)
    report = extract_slides([tmp_path / "slides.csv"], tmp_path / "features", settings)
    assert len(report.made) == len(part)
    overrides = [
        f"cohort.table={tmp_path / 'cohort.csv'}",
        f"features.dir={tmp_path / 'features'}",
        "cv.folds=2",
        "cv.repeats=1",
        "train.epochs=2",
        "train.least_steps=0",
        "train.members=2",
    ]
    for name, extra in (("rna", []), ("none", ["omics=null"])):
        experiment = load_experiment(EXAMPLE / "odx.yaml", [*overrides, *extra])
        result = crossval(experiment, tmp_path / name, workers=1)
        assert 0.0 <= result.metrics["test"]["auc"]["mean"] <= 1.0
    two = [tmp_path / "features" / f"{slide}.h5" for slide in part["slide_id"].head(2)]
    found = explain_slides(tmp_path / "rna", two, tmp_path / "why", slides=[tmp_path / "slides.csv"])
    assert found.failed == {}
    told, _ = predict(tmp_path / "rna", two)
    for slide_id, probability in zip(told["slide_id"], told["prob_H"], strict=True):
        folder = tmp_path / "why" / slide_id
        assert {"influence-H.png", "top.png", "prototypes-rna.png", "patches.geojson"} <= {
            path.name for path in folder.iterdir()
        }
        said = json.loads((folder / "explanation.json").read_text())
        assert said["prediction"]["H"] == pytest.approx(probability, abs=1e-6)
