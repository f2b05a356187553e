"""Explaining slides as a user does: what is written, what is left alone, what is said when something is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from momkd.cli.app import run as momkd
from momkd.errors import StudentError
from momkd.experiment import TaskSettings
from momkd.explain.run import Event, ExplainSettings, explain_slides
from momkd.slides.readers import read_bag
from momkd.student import load_student
from momkd.student.reasons import explain

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MakeStudent = Callable[..., Path]
MakeFeatures = Callable[..., Path]
DRAWN = {
    "patches.csv",
    "patches.geojson",
    "influence-high.png",
    "influence-high.ome.tif",
    "evidence.png",
    "attention.png",
    "explanation.json",
}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, make_student: MakeStudent) -> Path:
    return make_student(tmp_path_factory.mktemp("student"))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_slide_gets_maps_a_table_and_objects(student: Path, make_features: MakeFeatures, tmp_path: Path) -> None:
    file = make_features(tmp_path / "features", "A1")
    report = explain_slides(student, [file], tmp_path / "out")
    assert report.made == ["A1"]
    assert names(tmp_path / "out" / "A1") == DRAWN
    bag = read_bag(file)
    reasons = explain([load_student(student)], bag)
    table = pd.read_csv(tmp_path / "out" / "A1" / "patches.csv")
    np.testing.assert_array_equal(table[["x", "y"]], bag.coords)
    np.testing.assert_allclose(table["influence-high"], 24 * reasons.influence["high"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(table["attention"].mean(), 1.0, rtol=1e-4)
    told = json.loads((tmp_path / "out" / "A1" / "explanation.json").read_text())
    assert told["prediction"]["high"] == pytest.approx(float(load_student(student).predict(bag).values[1]), abs=1e-6)
    objects = json.loads((tmp_path / "out" / "A1" / "patches.geojson").read_text())["features"]
    speaks = [feature["properties"]["classification"]["name"] for feature in objects]
    assert speaks == ["high" if value > 0 else "low" for value in reasons.influence["high"]]


def test_it_goes_on_where_it_stopped_and_sees_what_changed(
    student: Path, make_features: MakeFeatures, tmp_path: Path
) -> None:
    features, out = tmp_path / "features", tmp_path / "out"
    make_features(features, "A1")
    explain_slides(student, [features], out)
    before = {path: path.read_bytes() for path in (out / "A1").iterdir()}
    make_features(features, "A2", seed=1)
    assert explain_slides(student, [features], out).unchanged == ["A1"]
    make_features(features, "A1", seed=2)
    again = explain_slides(student, [features], out)
    assert (again.made, again.unchanged) == (["A1"], ["A2"])
    make_features(features, "A1")
    explain_slides(student, [features], out)
    assert {path: path.read_bytes() for path in (out / "A1").iterdir()} == before
    (out / "A2" / "attention.png").unlink()
    assert explain_slides(student, [features], out).made == ["A2"]
    assert explain_slides(student, [features], out, ExplainSettings(top=3)).made == ["A1", "A2"]


def test_another_model_leaves_nothing_of_the_first(
    student: Path, make_student: MakeStudent, make_features: MakeFeatures, tmp_path: Path
) -> None:
    make_features(tmp_path / "features", "A1")
    explain_slides(student, [tmp_path / "features"], tmp_path / "out")
    (tmp_path / "out" / "A1" / "notes.txt").write_text("mine")
    for left in (".patches.77.0123abcd.tmp.csv", ".influence-high.ome.77.0123abcd.tmp.tif"):
        (tmp_path / "out" / "A1" / left).write_text("torn")  # by a kill
    abmil = make_student(tmp_path / "abmil", name="abmil")
    explain_slides(abmil, [tmp_path / "features"], tmp_path / "out")
    drawn = {"patches.csv", "patches.geojson", "attention.png", "attention.ome.tif", "explanation.json"}
    assert names(tmp_path / "out" / "A1") == {*drawn, "notes.txt"}


def test_one_bad_slide_stops_no_other(student: Path, make_features: MakeFeatures, tmp_path: Path) -> None:
    features = tmp_path / "features"
    make_features(features, "A1", width=7)
    make_features(features, "A2")
    (features / "A3.h5").write_bytes(b"not HDF5")
    seen: list[Event] = []
    report = explain_slides(student, [features], tmp_path / "out", watch=seen.append)
    assert report.made == ["A2"]
    assert set(report.failed) == {"A1", "A3"}
    assert "width 7" in report.failed["A1"]
    assert [event.kind for event in seen] == ["failed", "done", "failed"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "A3: not explained" in page
    assert momkd(["explain", str(student), str(features), "--out", str(tmp_path / "out")]) == 1


def test_without_coordinates_there_is_a_table_and_a_reason(
    make_student: MakeStudent, make_features: MakeFeatures, tmp_path: Path
) -> None:
    student = make_student(tmp_path / "student", graph_k=0)
    make_features(tmp_path / "features", "A1", coords=False)
    report = explain_slides(student, [tmp_path / "features"], tmp_path / "out")
    assert report.failed == {}
    assert names(tmp_path / "out" / "A1") == {"patches.csv", "explanation.json"}
    assert "no coordinates, so there is no map to draw" in report.notes[0]


def test_a_patch_size_can_be_given(student: Path, make_features: MakeFeatures, tmp_path: Path) -> None:
    make_features(tmp_path / "features", "A1", side=None)
    report = explain_slides(student, [tmp_path / "features"], tmp_path / "out")
    assert "--patch-size-level0" in report.notes[0]
    settings = ExplainSettings(patch_size_level0=64.0)
    explain_slides(student, [tmp_path / "features"], tmp_path / "out", settings)
    assert names(tmp_path / "out" / "A1") == DRAWN


@pytest.mark.parametrize(
    ("task", "maps"),
    [
        (TaskSettings(label="x", classes=("a", "b", "c")), {"influence-a.png", "influence-b.png", "influence-c.png"}),
        (TaskSettings(type="continuous", label="score"), {"influence-score.png"}),
        (TaskSettings(type="survival", label="months", event="status"), {"influence-months.png"}),
        (TaskSettings(type="ordinal", label="x", classes=("a", "b", "c")), {"influence-a.png", "influence-c.png"}),
        (
            TaskSettings(label="x", classes=("0", "HER2-", "HER2+")),
            {"influence-0.png", "influence-HER2_-2.png", "influence-HER2_-3.png"},
        ),
    ],
    ids=["three", "continuous", "survival", "ordinal", "alike"],
)
def test_every_task_is_explained(
    make_student: MakeStudent, make_features: MakeFeatures, tmp_path: Path, task: TaskSettings, maps: set[str]
) -> None:
    student = make_student(tmp_path / "student", task=task)
    make_features(tmp_path / "features", "A1")
    report = explain_slides(student, [tmp_path / "features"], tmp_path / "out", ExplainSettings(faithfulness=True))
    assert report.failed == {}
    assert maps <= names(tmp_path / "out" / "A1")


def test_methods_with_attention_have_one_map_and_others_say_why_they_have_none(
    make_student: MakeStudent, make_features: MakeFeatures, tmp_path: Path
) -> None:
    make_features(tmp_path / "features", "A1")
    abmil = make_student(tmp_path / "abmil", name="abmil")
    explain_slides(abmil, [tmp_path / "features"], tmp_path / "out")
    assert {"attention.png", "attention.ome.tif"} <= names(tmp_path / "out" / "A1")
    pool = make_student(tmp_path / "pool", name="mean-pool")
    report = explain_slides(pool, [tmp_path / "features"], tmp_path / "pooled")
    assert "mean-pool weighs all patches alike" in report.failed["A1"]


def test_an_untaught_memory_is_not_shown_as_evidence(
    make_student: MakeStudent, make_features: MakeFeatures, tmp_path: Path
) -> None:
    file = make_features(tmp_path / "features", "A1")
    found = explain([load_student(make_student(tmp_path / "student", shared_memory=False))], read_bag(file))
    assert found.evidence is None
    assert set(found.prototypes) == {"rna"}
    with pytest.raises(StudentError, match="no member 2: the student has 2, counted from 0"):
        explain([load_student(tmp_path / "student")], read_bag(file), member=2)


def test_faithfulness_of_several_slides(student: Path, make_features: MakeFeatures, tmp_path: Path) -> None:
    for number in range(3):
        make_features(tmp_path / "features", f"A{number}", seed=number)
    report = explain_slides(student, [tmp_path / "features"], tmp_path / "out", ExplainSettings(faithfulness=True))
    assert report.faithfulness is not None
    table = report.faithfulness.set_index("order")
    assert list(table.index) == ["influence", "evidence", "attention", "random"]
    assert (table["slides"] == 3).all()
    assert table.loc["influence", "deletion"] < table.loc["random", "deletion"]
    assert table.loc["influence", "insertion"] > table.loc["random", "insertion"]
    assert (tmp_path / "out" / "faithfulness.png").is_file()
    again = explain_slides(student, [tmp_path / "features"], tmp_path / "out", ExplainSettings(faithfulness=True))
    assert len(again.unchanged) == 3
    pd.testing.assert_frame_equal(again.faithfulness, report.faithfulness)


def test_the_page_shows_every_slide_and_asks_for_nothing_else(
    student: Path, make_features: MakeFeatures, tmp_path: Path, browser: Browser
) -> None:
    make_features(tmp_path / "features", "A 1 <b>#")
    make_features(tmp_path / "features", "A2", seed=1)
    report = explain_slides(student, [tmp_path / "features"], tmp_path / "out", ExplainSettings(faithfulness=True))
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((report.out / "index.html").as_uri())
    for picture in page.locator("img").all():
        picture.scroll_into_view_if_needed()
    page.wait_for_function("[...document.images].every(i => i.complete && i.naturalWidth > 100 && i.alt)")
    assert said == []
    assert all(url.startswith(report.out.as_uri()) for url in asked)
    assert page.locator("section").count() == 2
    page.get_by_role("link", name="A 1 <b>#", exact=True).click()
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
