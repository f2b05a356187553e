"""The ONNX file says what the student says, for every task, normaliser and bag, in onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import ndtri

from momkd.cli.app import run as momkd
from momkd.errors import StudentError
from momkd.experiment import ModelSettings, TaskSettings
from momkd.slides.bag import Bag
from momkd.slides.graph import bag_edges
from momkd.slides.normalize import Kind, make_normalizer
from momkd.student import FeatureGeometry, StudentCard, StudentPredictor, save_student
from momkd.student.export import _inverse_normal, export_onnx

ort = pytest.importorskip("onnxruntime", reason="needs the extra onnx: pip install 'momkd[onnx]'")
pytest.importorskip("onnxscript", reason="needs the extra onnx: pip install 'momkd[onnx]'")
WIDTH, K = 6, 3
TASKS = {
    "two": TaskSettings(label="HER2", classes=("low", "high")),
    "three": TaskSettings(label="x", classes=("a", "b", "c")),
    "ordinal": TaskSettings(type="ordinal", label="x", classes=("a", "b", "c")),
    "continuous": TaskSettings(type="continuous", label="x"),
    "survival": TaskSettings(type="survival", label="t", event="e"),
}


def bag_of(n: int, seed: int = 0) -> Bag:
    rng = np.random.default_rng(seed)
    coords = np.stack([np.arange(n) % 7, np.arange(n) // 7], 1) * 256
    features = rng.standard_t(2, size=(n, WIDTH)).astype(np.float32)
    features[:, 1] = np.round(features[:, 1])  # ties, so that quantiles repeat
    features[:, 2] = 4.0
    return Bag("A1", features, coords, 256.0, 0.5, "lite")


def student_of(task: str, normalize: Kind, *, rich: bool = True, name: str = "momkd") -> StudentPredictor:
    torch.manual_seed(1)
    settings = ModelSettings.model_validate(
        {
            "name": name,
            "encoder": {"dim": 8},
            "memory": {"codes": 3, "dim": 4, "focus_growth": 1.5},
            "classifier": {"hidden": 6},
            "wide": {"enabled": rich},
            "programmes": {"dim": 3 if rich else 0, "codes": 2},
        }
    )
    programmes = ("rna",) if rich and name == "momkd" else ()
    features = FeatureGeometry(WIDTH, "lite", 256.0, 0.5)
    card = StudentCard(TASKS[task], features, K, normalize, settings, 0.4, members=2, programmes=programmes)
    members = [card.network() for _ in range(2)]
    with torch.no_grad():
        for member in members:
            for parameter in member.parameters():
                parameter.copy_(0.4 * torch.randn_like(parameter))
    normalizer = make_normalizer(normalize).fit([bag_of(200, seed=9).features])
    return StudentPredictor(members, normalizer, card)


def run(path: Path, bag: Bag) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {"features": bag.features, "edges": bag_edges(bag, K).astype(np.int64)}
    return dict(zip(["prediction", "attention", "evidence"], session.run(None, given), strict=True))


@pytest.mark.parametrize(
    ("task", "normalize", "rich"),
    [
        ("two", "none", True),
        ("three", "quantile", True),
        ("ordinal", "standard", True),
        ("continuous", "quantile", False),
        ("survival", "standard", True),
    ],
)
def test_parity_with_the_student(tmp_path: Path, task: str, normalize: Kind, rich: bool) -> None:
    student = student_of(task, normalize, rich=rich)
    path = export_onnx([student], tmp_path / "student.onnx")
    for n in (1, 2, 5, 90):
        bag = bag_of(n)
        told, found = student.predict(bag), run(path, bag)
        np.testing.assert_allclose(found["prediction"], told.values, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["attention"], told.attention, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(found["evidence"], told.evidence, rtol=1e-4, atol=1e-6)


def test_several_students_vote(tmp_path: Path) -> None:
    students = [student_of("two", "none"), student_of("two", "quantile")]
    path = export_onnx(students, tmp_path / "run.onnx")
    bag = bag_of(30)
    expected = np.mean([one.predict(bag).values for one in students], axis=0)
    np.testing.assert_allclose(run(path, bag)["prediction"], expected, rtol=1e-5, atol=1e-6)


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    save_student(student_of("two", "none"), tmp_path / "student")
    assert momkd(["export", str(tmp_path / "student"), "--out", str(tmp_path / "a.onnx")]) == 0
    told = ort.InferenceSession(str(tmp_path / "a.onnx")).get_modelmeta().custom_metadata_map
    assert told["momkd.label"] == "HER2"
    assert json.loads(told["momkd.classes"]) == ["low", "high"]
    assert json.loads(told["momkd.threshold"]) == 0.4
    assert json.loads(told["momkd.features"])["encoder"] == "lite"
    assert "Not a medical device" in told["momkd.intended_use"]


def test_a_baseline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="only students of momkd can be exported"):
        export_onnx([student_of("two", "none", name="abmil", rich=False)], tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_the_inverse_normal_is_scipys() -> None:
    p = torch.cat([torch.logspace(-7, -1, 500), torch.linspace(0.02, 0.98, 500), 1 - torch.logspace(-7, -1, 500)])
    found = _inverse_normal(p.double())
    np.testing.assert_allclose(found.numpy(), ndtri(p.double().numpy()), rtol=2e-9, atol=2e-9)
