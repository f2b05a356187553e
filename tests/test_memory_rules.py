"""Which options of the memory fit together: refused, or noted, and never passed over in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from momkd.cohort.check import check
from momkd.errors import ExperimentError
from momkd.experiment import Experiment, MemorySettings, build_experiment, load_experiment, memory_notes

Options = dict[str, object]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"update": "fixed", "revive": 2}, "revive 2 moves idle codes, but rule fixed never moves a code"),
        ({"update": "queue", "revive": 1}, "revive 1 moves idle codes, but rule queue replaces every code in turn"),
        ({"momentum": 0.5}, "momentum 0.5 is of rules ema and hybrid; rule gradient has none"),
        ({"update": "queue", "momentum": 0.5}, "momentum 0.5 is of rules ema and hybrid; rule queue has none"),
        ({"update": "ema", "lr_mult": 3.0}, "lr_mult 3 is of rules gradient and hybrid; rule ema has no optimiser"),
        ({"update": "ema", "orthogonality": "across"}, "orthogonality across needs a gradient; under ema none"),
        ({"update": "fixed", "orthogonality": "both"}, "orthogonality both needs a gradient; under fixed none"),
        ({"init": "random", "init_patches": 100}, "init_patches 100 is of the k-means; init random has none"),
        ({"warmup_epochs": 5}, "warmup_epochs 5 is of init warmup, not of kmeans"),
        ({"update": "ema", "decoupling": {"classifier": 0.5}}, r"decoupling.classifier 0.5 lets a gradient through"),
        ({"update": "fixed", "decoupling": {"rna": 0.5}}, "rule fixed moves none; give 0"),
        ({"update": "queue", "decoupling": {"rna": 0.5}}, "a queue holds a projection or does not"),
        ({"update": "queue", "decoupling": {"rna": 1, "slide": 1}}, "no query to follow; give update: fixed"),
        ({"update": "ema", "decoupling": {"rna": 1, "slide": 1}}, "no query to follow; give update: fixed"),
        ({"update": "hybrid", "decoupling": {"rna": 1, "slide": 1}}, "no query to follow; give update: gradient"),
    ],
)
def test_options_that_contradict_each_other(options: Options, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MemorySettings.model_validate(options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"update": "ema", "momentum": 0.9, "revive": 3, "decoupling": {"slide": 1.0}},
        {"update": "hybrid", "momentum": 0.5, "lr_mult": 10, "orthogonality": "both", "decoupling": {"classifier": 0}},
        {"update": "queue", "decoupling": {"slide": 1.0}},
        {"update": "fixed", "orthogonality": "none"},
        {"init": "warmup", "warmup_epochs": 5, "init_patches": 100},
        {"decoupling": {"rna": 1.0, "slide": 1.0}},
    ],
)
def test_options_that_go_together(options: Options) -> None:
    settings = MemorySettings.model_validate(options)
    assert MemorySettings.model_validate(settings.model_dump()) == settings


def test_all_contradictions_at_once() -> None:
    with pytest.raises(ValidationError, match=r"momentum .*lr_mult .*revive "):
        MemorySettings(update="fixed", momentum=0.5, lr_mult=2.0, revive=1)


MINIMAL: Options = {
    "cohort": {"table": "cohort.csv"},
    "features": {"dir": "features"},
    "omics": {"table": "rna.csv"},
    "task": {"label": "HER2", "classes": ["negative", "positive"]},
}


def experiment(*overrides: str) -> Experiment:
    return build_experiment(MINIMAL, base=Path(), overrides=overrides)


PUBLISHED = "model.preset=published"


def test_a_queue_is_not_averaged() -> None:
    with pytest.raises(ExperimentError, match=r"train.average 0.9 would average unrelated codes"):
        experiment(PUBLISHED, "model.memory.update=queue", "train.average=0.9")
    experiment(PUBLISHED, "model.memory.update=queue")
    experiment("model.memory.update=queue")  # no loss moves it, so a note is enough


def test_a_warm_up_as_long_as_the_training() -> None:
    warm = [PUBLISHED, "model.memory.init=warmup", "model.memory.warmup_epochs=4"]
    with pytest.raises(ExperimentError, match=r"warmup_epochs 4 leaves none of train.epochs 4"):
        experiment(*warm, "train.epochs=4")
    experiment(*warm, "train.epochs=5")
    # Under the cosine schedule there may be more epochs than are set.
    experiment(*warm, "train.epochs=4", "train.schedule=cosine", "train.least_steps=1000")


def test_another_method_is_not_asked_about_the_memory() -> None:
    experiment(PUBLISHED, "model.name=abmil", "model.memory.update=queue", "train.average=0.9")
    assert memory_notes(experiment("model.name=abmil", "model.memory.codes=99").model, omics=True) == []


def notes(*overrides: str, omics: bool = True) -> list[str]:
    return memory_notes(experiment(*overrides).model, omics=omics)


def test_nothing_to_note_of_the_presets() -> None:
    for preset in ("default", "published"):
        for omics in (True, False):
            assert notes(f"model.preset={preset}", omics=omics) == []


def test_the_floor_of_orthogonality() -> None:
    (note,) = notes(PUBLISHED, "model.memory.codes=20", "model.memory.dim=10")
    assert "codes is 20 and dim 10" in note
    assert "1/dim − 1/codes = 0.0500" in note
    assert notes(PUBLISHED, "model.memory.codes=10", "model.memory.dim=10") == []


def test_options_that_no_loss_uses_are_noted() -> None:
    (note,) = notes("model.memory.update=ema")
    assert "no loss uses the memory (model.loss.memory, rna and slide are 0)" in note
    assert "so model.memory.update changes nothing" in note
    (note,) = notes("model.memory.revive=2", "model.memory.margin=0.5", "model.memory.decoupling.rna=1")
    assert "model.memory.revive, margin, decoupling.rna change nothing" in note
    (note,) = notes(PUBLISHED, "model.memory.update=ema", omics=False)
    assert "there are no omics" in note
    assert notes("model.memory.update=ema", "model.loss.rna=0.05") == []
    # These work without any of the losses: the attention reads the codes, wherever they are.
    assert (
        notes("model.memory.init=random", "model.memory.temperature=0.5", "model.memory.decoupling.classifier=0") == []
    )


def test_a_rule_without_a_projection_to_follow_is_noted() -> None:
    (note,) = notes(PUBLISHED, "model.memory.update=ema", "model.loss.rna=0", "model.memory.decoupling.slide=1")
    assert "model.memory.update ema follows the projections" in note
    (note,) = notes(PUBLISHED, "model.memory.revive=3", "model.loss.rna=0", "model.loss.slide=0")
    assert "revive 3" in note


def test_an_orthogonality_of_weight_zero_is_noted() -> None:
    (note,) = notes(PUBLISHED, "model.memory.orthogonality=both", "model.loss.orthogonality=0")
    assert "orthogonality both changes nothing" in note


def test_the_check_shows_the_notes_and_goes_on(tmp_path: Path, make_cohort: Callable[..., Path]) -> None:
    file = make_cohort(tmp_path)
    assert not [p for p in check(load_experiment(file)).problems if p.subject == "memory"]
    report = check(load_experiment(file, ["model.memory.update=hybrid", "model.memory.codes=7"]))
    found = [problem for problem in report.problems if problem.subject == "memory"]
    assert report.ok
    assert [problem.severity for problem in found] == ["note", "note"]
    assert "cannot be orthogonal" in str(found[0])
    assert "model.memory.update changes nothing" in str(found[1])
