"""A student on disk: whole, checked, without RNA, and the same numbers after a round trip."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from momkd.errors import StudentError
from momkd.experiment import ModelSettings, TaskSettings
from momkd.slides.bag import Bag
from momkd.slides.normalize import make_normalizer
from momkd.student import FeatureGeometry, StudentCard, StudentPredictor, load_student, save_student

TASK = TaskSettings(label="HER2", classes=("negative", "positive"))
SETTINGS = ModelSettings.model_validate(
    {"encoder": {"dim": 8}, "memory": {"codes": 2, "dim": 4}, "classifier": {"hidden": 6}}
)


def make_bag(width: int = 5, encoder: str | None = "uni_v2", n: int = 12) -> Bag:
    rng = np.random.default_rng(0)
    return Bag(
        slide_id="slide",
        features=rng.normal(size=(n, width)).astype(np.float32),
        coords=np.stack(np.meshgrid(np.arange(4), np.arange(n // 4)), -1).reshape(-1, 2) * 256,
        patch_size_level0=256.0,
        mpp=0.5,
        encoder=encoder,
        edges={},
        layout="momkd",
        source=Path("slide.h5"),
    )


@pytest.fixture(params=["none", "standard", "quantile"])
def predictor(request: pytest.FixtureRequest) -> StudentPredictor:
    torch.manual_seed(0)
    normalizer = make_normalizer(request.param).fit([make_bag().features])
    card = StudentCard(
        task=TASK,
        features=FeatureGeometry(5, "uni_v2", 256.0, 0.5),
        graph_k=3,
        normalize=request.param,
        model=SETTINGS,
        threshold=0.4,
        members=2,
        validation={"auc": 0.75},
        source="fold-0-0",
    )
    return StudentPredictor([card.network() for _ in range(2)], normalizer, card)


def test_round_trip(predictor: StudentPredictor, tmp_path: Path) -> None:
    save_student(predictor, tmp_path / "student")
    loaded = load_student(tmp_path / "student")
    before, after = predictor.predict(make_bag()), loaded.predict(make_bag())
    np.testing.assert_array_equal(before.values, after.values)
    np.testing.assert_array_equal(before.attention, after.attention)
    np.testing.assert_array_equal(before.evidence, after.evidence)
    assert loaded.card.threshold == 0.4
    assert loaded.card.features == predictor.card.features
    assert sum(after.values) == pytest.approx(1.0)
    assert after.attention.sum() == pytest.approx(1.0, rel=1e-5)


def test_same_student_same_bytes(predictor: StudentPredictor, tmp_path: Path) -> None:
    save_student(predictor, tmp_path / "a")
    save_student(predictor, tmp_path / "b")
    for name in ("student.json", "student.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_no_rna_weight_inside(predictor: StudentPredictor, tmp_path: Path) -> None:
    save_student(predictor, tmp_path)
    names = load_file(tmp_path / "student.safetensors")
    assert all(name.startswith(("member.", "normalizer.")) for name in names)
    assert not any("rna" in name for name in names)
    assert "rna" not in (tmp_path / "student.json").read_text()


def test_other_features_are_refused(predictor: StudentPredictor) -> None:
    with pytest.raises(StudentError, match="slide has features of width 6, this student was trained on width 5"):
        predictor.predict(make_bag(width=6))
    with pytest.raises(StudentError, match="features of encoder 'conch'.*trained on 'uni_v2'"):
        predictor.predict(make_bag(encoder="conch"))
    predictor.predict(make_bag(encoder=None))  # a file that does not say cannot be held against it


def test_damage_is_named(predictor: StudentPredictor, tmp_path: Path) -> None:
    save_student(predictor, tmp_path)
    tensors, card = tmp_path / "student.safetensors", tmp_path / "student.json"
    good_tensors, good_card = tensors.read_bytes(), card.read_text()

    tensors.write_bytes(good_tensors[:-1] + bytes([good_tensors[-1] ^ 1]))
    with pytest.raises(StudentError, match="SHA-256.*damaged or exchanged"):
        load_student(tmp_path)
    tensors.write_bytes(good_tensors)

    card.write_text(json.dumps({**json.loads(good_card), "format_version": 99}))
    with pytest.raises(StudentError, match="format version 99, this momkd reads 3; upgrade"):
        load_student(tmp_path)
    huge = json.loads(good_card)
    huge["features"]["width"] = 10**12
    card.write_text(json.dumps(huge))
    with pytest.raises(StudentError, match="does not hold the network of its card"):
        load_student(tmp_path)
    for text in ("{", "[]", json.dumps({"format_version": 2}), good_card.replace('"dim"', '"dimm"')):
        card.write_text(text)
        with pytest.raises(StudentError, match="student card|format version"):
            load_student(tmp_path)
    card.unlink()
    with pytest.raises(StudentError, match="no such file; a student folder holds student.json"):
        load_student(tmp_path)


def test_two_slides_do_not_influence_each_other(predictor: StudentPredictor) -> None:
    first = predictor.predict(make_bag())
    predictor.predict(replace(make_bag(n=8), slide_id="other"))
    np.testing.assert_array_equal(first.values, predictor.predict(make_bag()).values)


def test_loading_a_student_imports_no_training_and_no_tables() -> None:
    code = (
        "import sys, momkd.student\n"
        "names = ('pandas', 'sklearn', 'xgboost', 'momkd.omics', 'momkd.training', 'momkd.cohort')\n"
        "bad = [m for m in names if m in sys.modules]\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


TASKS = {
    "classes": TaskSettings(label="type", classes=("a", "b", "c")),
    "ordinal": TaskSettings(type="ordinal", label="grade", classes=("low", "medium", "high")),
    "continuous": TaskSettings(type="continuous", label="score", bins=5),
    "survival": TaskSettings(type="survival", label="days", event="died", bins=3),
}


def taught(task: TaskSettings, model: ModelSettings, programmes: tuple[str, ...]) -> StudentPredictor:
    """A student of two members that have seen targets and moved away from where networks start."""
    torch.manual_seed(1)
    card = StudentCard(
        task=task,
        features=FeatureGeometry(5),
        graph_k=3,
        normalize="standard",
        model=model,
        threshold=0.5,
        members=2,
        programmes=programmes,
    )
    members = [card.network() for _ in range(2)]
    for number, member in enumerate(members):
        for parameter in member.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        value = torch.arange(12.0) % 3 if task.categorical else torch.arange(12.0).add(1 + number).exp2()
        member.outcome.start(torch.stack([value, torch.ones(12)], 1))
    return StudentPredictor(members, make_normalizer("standard").fit([make_bag().features]), card)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("name", ["momkd", "abmil"])
def test_round_trip_of_every_task(kind: str, name: str, tmp_path: Path) -> None:
    """Cut points, units, intervals and baseline hazards travel with the weights."""
    own: dict[str, dict[str, object]] = {"programmes": {"dim": 3}, "wide": {"enabled": True}}
    settings = {**SETTINGS.model_dump(), "name": name, **(own if name == "momkd" else {"baseline": {"dim": 8}})}
    programmes = ("cnv", "rna") if name == "momkd" else ()
    predictor = taught(TASKS[kind], ModelSettings.model_validate(settings), programmes)
    save_student(predictor, tmp_path)
    loaded = load_student(tmp_path)
    before, after = predictor.predict(make_bag()), loaded.predict(make_bag())
    np.testing.assert_array_equal(before.values, after.values)
    assert before.values.shape == (3 if TASKS[kind].classes else 1,)
    assert (loaded.card.task, loaded.card.programmes) == (TASKS[kind], programmes)
    for mine, theirs in zip(predictor.members, loaded.members, strict=True):
        own_state, their_state = mine.outcome.state_dict(), theirs.outcome.state_dict()
        assert all(torch.equal(own_state[key], their_state[key]) for key in own_state)
    alone = [loaded.member(number).predict(make_bag()).values for number in range(2)]
    assert not np.allclose(alone[0], alone[1])
    np.testing.assert_allclose(after.values, np.mean(alone, axis=0), rtol=1e-6)
    if kind == "continuous":
        # The mean values of 2¹ … 2¹² and of 2² … 2¹³: each member tells its score in its own units.
        assert [float(member.outcome.state_dict()["mean"]) for member in loaded.members] == [682.5, 1365.0]


def test_a_card_of_another_task_does_not_fit_the_tensors(tmp_path: Path) -> None:
    """An ordinal network holds cut points, a nominal one a logit a class: neither passes for the other."""
    save_student(taught(TASKS["ordinal"], SETTINGS, ()), tmp_path)
    card = json.loads((tmp_path / "student.json").read_text())
    card["task"]["type"] = "classification"
    (tmp_path / "student.json").write_text(json.dumps(card))
    with pytest.raises(StudentError, match="does not hold the network of its card"):
        load_student(tmp_path)
