"""The grid of a sweep: what the user writes, the points it means, and everything that can be wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.sweeps import write

from momkd.errors import ExperimentError
from momkd.experiment import load_experiment, load_sweep


def problems(folder: Path, section: Any = None, grid: tuple[str, ...] = (), overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ExperimentError) as caught:
        load_sweep(write(folder, section), grid, overrides)
    return str(caught.value)


def test_a_grid_has_every_value_with_every_other_the_last_fastest(tmp_path: Path) -> None:
    grid = ["model.memory.codes=8,16", "model.memory.init=kmeans,random"]
    plan = load_sweep(write(tmp_path), grid, ["train.epochs=7"])
    names = ["codes=8,init=kmeans", "codes=8,init=random", "codes=16,init=kmeans", "codes=16,init=random"]
    assert [point.name for point in plan.points] == names
    assert plan.keys == ("model.memory.codes", "model.memory.init")
    last = plan.points[-1]
    assert dict(last.settings) == {"model.memory.codes": 16, "model.memory.init": "random"}
    assert (last.experiment.model.memory.codes, last.experiment.model.memory.init) == (16, "random")
    assert {point.experiment.train.epochs for point in plan.points} == {7}


def test_the_file_and_the_command_line_mean_the_same(tmp_path: Path) -> None:
    of_file = load_sweep(write(tmp_path, {"train.lr": [1e-3, 2e-4], "model.wide.enabled": [True, False]}))
    of_words = load_sweep(write(tmp_path), ["train.lr=1e-3,2.0e-4", "model.wide.enabled=true,false"])
    assert of_file == of_words
    assert of_file.points[1].name == "lr=0.001,enabled=false"
    assert load_sweep(write(tmp_path, {"train.seed": [1, 2]}), ["train.lr=1e-3"]).keys == ("train.lr",)


def test_points_vary_settings_together_and_show_what_the_others_have(tmp_path: Path) -> None:
    together = [{}, {"model.memory.update": "ema", "model.memory.momentum": 0.9}]
    plan = load_sweep(write(tmp_path, {"points": together}))
    assert [point.name for point in plan.points] == ["base", "update=ema,momentum=0.9"]
    assert [list(point.settings.values()) for point in plan.points] == [["gradient", 0.99], ["ema", 0.9]]
    assert plan.points[0].experiment == load_experiment(write(tmp_path))
    crossed = load_sweep(write(tmp_path, {"train.seed": [0, 1], "points": together}))
    assert [point.name for point in crossed.points][:2] == ["seed=0", "seed=0,update=ema,momentum=0.9"]


def test_any_value_of_yaml_is_a_value(tmp_path: Path) -> None:
    omics = [None, {"table": "other.csv", "select": {"method": "none"}}]
    plan = load_sweep(write(tmp_path, {"omics": omics, "features.dir": ["a/uni", "a.uni"]}))
    assert [point.experiment.omics is None for point in plan.points] == [True, True, False, False]
    assert plan.points[0].experiment.features.dir == tmp_path / "a" / "uni"
    assert plan.points[3].settings["omics"] == "{table: other.csv, select: {method: none}}"
    names = [point.name for point in plan.points]
    assert len(set(names)) == 4
    assert all("/" not in name and " " not in name and len(name) <= 100 for name in names)
    listed = load_sweep(write(tmp_path), ["omics.select.genes=[A, B],[C]"])
    assert [point.experiment.omics["rna"].select.genes for point in listed.points if point.experiment.omics] == [
        ("A", "B"),
        ("C",),
    ]


def test_names_are_as_long_as_it_takes_to_tell_settings_apart(tmp_path: Path) -> None:
    plan = load_sweep(write(tmp_path), ["model.memory.dim=4,8", "model.encoder.dim=8,16", "train.lr=0.1"])
    assert plan.points[0].name == "memory.dim=4,encoder.dim=8,lr=0.1"


def test_other_verbs_take_the_file_without_its_sweep(tmp_path: Path) -> None:
    file = write(tmp_path, {"train.seed": [1, 2]})
    experiment = load_experiment(file)
    assert experiment.train.seed == 0
    assert "sweep" not in experiment.to_yaml()


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    grid = ("model.memory.code=8,16", "train.lr=fast,0.1", "cv.folds=3,4", "train.epochs=", "epochs", "a=[1")
    text = problems(tmp_path, grid=grid)
    assert "6 problems of the sweep" in text
    assert "model.memory.code: unknown key; did you mean 'codes'?" in text
    assert (
        "(found 'fast') [at code=8,lr=fast,folds=3 | code=8,lr=fast,folds=4 | code=16,lr=fast,folds=3 and 1 more]"
        in text
    )
    assert "cv.folds: cannot vary, since all points share patients, folds and task; use --set" in text
    assert "--grid 'train.epochs=': expected section.key=value,value" in text
    assert "--grid 'epochs': expected section.key=value,value" in text
    assert "--grid 'a=[1': the values are not readable" in text


@pytest.mark.parametrize(
    ("section", "grid", "overrides", "words"),
    [
        (None, (), (), "no sweep; expected a section sweep: {model.memory.codes: [8, 16, 32]}, or --grid"),
        ([1], (), (), "sweep: found [1]; expected a section"),
        (
            {"train": {"lr": [1, 2]}},
            (),
            (),
            "sweep.train: found {'lr': [1, 2]}; expected a list of values; the key has",
        ),
        ({"train.lr": []}, (), (), "sweep.train.lr: found []; expected a list of values"),
        ({"points": [{}, 3]}, (), (), "sweep.points: found 3; expected mappings"),
        ({"train.lr": [0.1], "points": [{"train.lr": 1}]}, (), (), "train.lr: varied twice"),
        (None, ("train.seed=1,2",), ("train.seed=3",), "train.seed: both varied and given by --set"),
        (None, ("omics=null", "omics.scale=none"), (), "omics and omics.scale: the second is a part of the first"),
        (None, ("train.lr=1e-3,0.001",), (), "points 1 (lr=0.001) and 2 (lr=0.001) are the same experiment"),
        (None, ("task.classes=[a, b],[b, a]",), (), "task.classes: cannot vary"),
        (None, ("cohort.table=a.csv,b.csv",), (), "cohort.table: cannot vary"),
        (None, ("modle.memory.codes=8",), (), "modle: unknown key; did you mean 'model'?"),
        (None, ("model.memory.momentum=0.9",), (), "momentum 0.9 is of rules ema and hybrid"),
    ],
)
def test_what_is_no_sweep(
    tmp_path: Path, section: Any, grid: tuple[str, ...], overrides: tuple[str, ...], words: str
) -> None:
    assert words in problems(tmp_path, section, grid, overrides)


def test_settings_that_change_nothing_are_noted_where_they_do(tmp_path: Path) -> None:
    plan = load_sweep(write(tmp_path), ["model.memory.update=gradient,ema"])
    assert len(plan.notes) == 1
    assert "model.memory.update changes nothing" in plan.notes[0]
    assert plan.notes[0].endswith("[at update=ema]")
    assert load_sweep(write(tmp_path), ["train.seed=1,2"]).notes == []
