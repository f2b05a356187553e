"""The experiment file: merging, overrides, and messages that name the mend."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from momkd.errors import ExperimentError
from momkd.experiment import Experiment, TaskSettings, build_experiment, load_experiment

MINIMAL = """
cohort: {table: cohort.csv}
features: {dir: features}
task: {label: HER2, classes: [negative, positive]}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_minimal_file_gets_defaults_and_paths_relative_to_it(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path, MINIMAL))
    assert experiment.cohort.table == tmp_path / "cohort.csv"
    assert experiment.omics is None
    assert experiment.graph.k == 8


def test_merge_order_field_preset_file_override(tmp_path: Path) -> None:
    text = MINIMAL + "model: {preset: published, encoder: {heads: 4}}\ntrain: {batch_size: 2}\n"
    experiment = load_experiment(write(tmp_path, text), ["train.batch_size=3", "model.memory.codes=5"])
    assert (experiment.model.encoder.dim, experiment.model.encoder.heads) == (512, 4)
    assert (experiment.train.batch_size, experiment.model.memory.codes) == (3, 5)
    assert load_experiment(write(tmp_path, text)).train.batch_size == 2
    published = load_experiment(write(tmp_path, MINIMAL), ["model.preset=published"])
    assert published.train.batch_size == 1
    assert published.train.lr == 2.0e-4


def test_resolved_file_reads_back_to_the_same_experiment(tmp_path: Path) -> None:
    first = load_experiment(write(tmp_path, MINIMAL), ["omics.table=rna.csv.gz", "cohort.group=site"])
    elsewhere = tmp_path / "run"
    elsewhere.mkdir()
    assert load_experiment(write(elsewhere, first.to_yaml())) == first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epoch: 3}", r"train.epoch: unknown key; did you mean 'epochs'"),
        ("cohrt: {table: x}", r"cohrt: unknown key; did you mean 'cohort'"),
        ("omics: {table: r.csv, select: {methd: mad}}", r"omics.select.methd: unknown key; did you mean 'method'"),
        ("train: {lr: -1}", r"train.lr: .*greater than 0 \(found -1\)"),
        ("model: {preset: fancy}", r"model.preset: .*'default' or 'published'"),
        ("model: {encoder: {dim: 7}}", r"dim 7 is not a multiple of heads 2"),
        ("cv: {folds: 1}", r"cv.folds"),
    ],
)
def test_messages(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        load_experiment(write(tmp_path, MINIMAL + text))


def test_all_problems_at_once(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="3 problems") as caught:
        load_experiment(write(tmp_path, "cohort: {tabel: x}\nfeatures: {dir: f}\ntask: {label: a, classes: [a, A]}"))
    text = str(caught.value)
    assert "cohort.table: missing" in text
    assert "did you mean 'table'" in text
    assert "not distinct" in text


def test_yes_and_no_are_class_names(tmp_path: Path) -> None:
    text = MINIMAL.replace("[negative, positive]", "[no, yes]")
    assert load_experiment(write(tmp_path, text)).task.classes == ("no", "yes")


def test_numbers_as_classes_and_scientific_notation(tmp_path: Path) -> None:
    text = MINIMAL.replace("[negative, positive]", "[0, 1], map: {0: 0, 2: 1}") + "train: {lr: 1e-3}"
    experiment = load_experiment(write(tmp_path, text))
    assert experiment.task.classes == ("0", "1")
    assert experiment.task.map == {"0": "0", "2": "1"}
    assert experiment.train.lr == 1e-3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "found list, expected sections"),
        ("a: [", "not a readable YAML"),
        ("train: {seed: 1}\ntrain: {seed: 2}", "key given twice: train"),
        ("a: !!python/object/apply:os.system ['true']", "not a readable YAML"),
    ],
)
def test_files_that_are_not_experiments(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        load_experiment(write(tmp_path, text))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="momkd init"):
        load_experiment(tmp_path / "none.yaml")


@pytest.mark.parametrize("override", ["epochs", "=3", "train..x=1", "train.lr=[", "train.epochz=1"])
def test_bad_overrides(tmp_path: Path, override: str) -> None:
    with pytest.raises(ExperimentError):
        load_experiment(write(tmp_path, MINIMAL), [override])


def task(folder: Path, text: str) -> TaskSettings:
    return load_experiment(write(folder, MINIMAL.replace("{label: HER2, classes: [negative, positive]}", text))).task


def test_the_tasks(tmp_path: Path) -> None:
    three = task(tmp_path, "{label: type, classes: [a, b, c]}")
    assert (three.classes, three.bins, three.binary, three.categorical) == (("a", "b", "c"), 0, False, True)
    assert task(tmp_path, "{type: ordinal, label: grade, classes: [1, 2, 3]}").categorical
    assert task(tmp_path, "{type: continuous, label: Ki67}").bins == 3
    survival = task(tmp_path, "{type: survival, label: days, event: died, bins: 5}")
    assert (survival.event, survival.bins, survival.classes, survival.binary) == ("died", 5, (), False)
    assert task(tmp_path, "{type: survival, label: days, event: died}").bins == 4


def test_each_task_reads_back_from_its_resolved_file(tmp_path: Path) -> None:
    for text in (
        "{label: t, classes: [a, b, c]}",
        "{type: continuous, label: t}",
        "{type: survival, label: t, event: e}",
    ):
        first = load_experiment(write(tmp_path, MINIMAL.replace("{label: HER2, classes: [negative, positive]}", text)))
        assert load_experiment(write(tmp_path, first.to_yaml())) == first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{label: a}", r"type classification needs two classes or more in classes, found \[\]"),
        ("{type: ordinal, label: a, classes: [x]}", "type ordinal needs two classes or more"),
        ("{type: ordinal, label: a, classes: [x, y], bins: 3}", "bins is for types continuous and survival"),
        ("{type: continuous, label: a, classes: [x, y]}", "classes is for types .*; type continuous has no classes"),
        ("{type: continuous, label: a, map: {1: b}}", "map is for types"),
        ("{type: continuous, label: a, event: b}", "event is for type survival"),
        ("{type: continuous, label: a, bins: 1}", "bins is 1; type continuous needs 2 or more"),
        ("{type: survival, label: a}", "event is missing"),
        ("{type: survival, label: a, event: a}", "event and label are both 'a'"),
        ("{type: survival, label: a, event: b, classes: [x, y]}", "type survival has no classes"),
        ("{type: regression, label: a}", "task.type: .*'classification', 'ordinal'"),
    ],
)
def test_fields_that_do_not_fit_the_task(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        task(tmp_path, text)


def test_build_from_a_mapping(tmp_path: Path) -> None:
    experiment = build_experiment(yaml.safe_load(MINIMAL), base=tmp_path)
    assert isinstance(experiment, Experiment)
    assert experiment.features.dir == tmp_path / "features"


def test_the_least_steps_of_a_preset_give_way_to_epochs_that_were_asked_for(tmp_path: Path) -> None:
    file = write(tmp_path, MINIMAL + "train: {lr: 0.001}\n")
    assert load_experiment(file).train.least_steps == 120
    asked = load_experiment(file, ["train.epochs=3"]).train
    assert (asked.epochs, asked.least_steps) == (3, 0)
    both = load_experiment(file, ["train.epochs=3", "train.least_steps=7"]).train
    assert (both.epochs, both.least_steps) == (3, 7)
