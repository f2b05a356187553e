"""The omics section: one table or several, their names, presets and paths, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from momkd.errors import ExperimentError
from momkd.experiment import Experiment, OmicsSettings, load_experiment

MINIMAL = """
cohort: {table: cohort.csv}
features: {dir: features}
task: {label: HER2, classes: [negative, positive]}
"""


def load(folder: Path, omics: str, *overrides: str) -> Experiment:
    path = folder / "experiment.yaml"
    path.write_text(f"{MINIMAL}omics: {omics}\n", encoding="utf-8")
    return load_experiment(path, overrides)


def tables(experiment: Experiment) -> dict[str, OmicsSettings]:
    assert experiment.omics is not None
    return dict(experiment.omics)


def test_one_table_is_rna_unless_it_has_a_name(tmp_path: Path) -> None:
    assert list(tables(load(tmp_path, "{table: a.csv}"))) == ["rna"]
    named = tables(load(tmp_path, "{table: a.csv, name: protein}"))
    assert named == {"protein": tables(load(tmp_path, "{table: a.csv}"))["rna"]}


def test_several_tables_have_settings_of_their_own(tmp_path: Path) -> None:
    found = tables(load(tmp_path, "{rna: {table: a.csv, transform: log2p1}, cnv: {table: x/b.csv, scale: none}}"))
    assert list(found) == ["cnv", "rna"]
    assert (found["rna"].table, found["cnv"].table) == (tmp_path / "a.csv", tmp_path / "x" / "b.csv")
    assert (found["rna"].transform, found["cnv"].transform) == ("log2p1", "none")
    # The preset's scale and selection hold for each table that does not say otherwise.
    assert (found["rna"].scale, found["cnv"].scale) == ("winsor", "none")
    assert (found["rna"].select.method, found["cnv"].select.method) == ("none", "none")
    published = tables(load(tmp_path, "{rna: {table: a.csv}, cnv: {table: b.csv}}", "model.preset=published"))
    assert {one.scale for one in published.values()} == {"standard"}
    assert {one.select.method for one in published.values()} == {"xgboost"}


def test_the_order_of_the_tables_in_the_file_says_nothing(tmp_path: Path) -> None:
    first = load(tmp_path, "{rna: {table: a.csv}, cnv: {table: b.csv}}")
    assert first.to_yaml() == load(tmp_path, "{cnv: {table: b.csv}, rna: {table: a.csv}}").to_yaml()


def test_overrides_reach_one_table_and_null_leaves_one_out(tmp_path: Path) -> None:
    several = "{rna: {table: a.csv}, cnv: {table: b.csv}}"
    found = tables(load(tmp_path, several, "omics.cnv.share=.5", "omics.cnv.select.method=mad"))
    assert (found["cnv"].share, found["rna"].share) == (0.5, 1.0)
    assert found["cnv"].select.method == "mad"
    assert list(tables(load(tmp_path, several, "omics.cnv=null"))) == ["rna"]
    assert load(tmp_path, several, "omics=null").omics is None


@pytest.mark.parametrize(
    "omics", ["{table: a.csv}", "{table: a.csv, name: cnv, share: .5}", "{rna: {table: a.csv}, cnv: {table: b.csv}}"]
)
def test_the_resolved_file_reads_back_and_takes_the_overrides_of_the_first(tmp_path: Path, omics: str) -> None:
    first = load(tmp_path, omics)
    (tmp_path / "resolved.yaml").write_text(first.to_yaml(), encoding="utf-8")
    assert load_experiment(tmp_path / "resolved.yaml") == first
    place = "omics.rna.scale" if "rna:" in omics else "omics.scale"
    changed = load_experiment(tmp_path / "resolved.yaml", [f"{place}=none"])
    assert "none" in {one.scale for one in tables(changed).values()}


@pytest.mark.parametrize(
    ("omics", "message"),
    [
        ("{}", "omics.table: missing"),
        ("{tabel: a.csv}", r"omics.tabel: unknown key; did you mean 'table'"),
        ("{table: a.csv, select: {methd: mad}}", r"omics.select.methd: unknown key; did you mean 'method'"),
        ("{table: a.csv, name: 2nd}", r"omics: a table's name is letters, digits and _, .*found '2nd'"),
        ("{table: a.csv, share: 0}", r"omics.share: .*greater than 0"),
        ("{table: a.csv, share: 1.5}", r"omics.share: .*less than or equal to 1"),
        ("{rna: {table: a.csv}, c-v: {table: b.csv}}", r"omics.c-v: a table's name is letters"),
        (
            "{rna: {table: a.csv}, cnv: {table: b.csv, scal: none}}",
            r"omics.cnv.scal: unknown key; did you mean 'scale'",
        ),
        ("{rna: {table: a.csv}, cnv: {scale: none}}", "omics.cnv.table: missing"),
        ("{rna: {table: a.csv}, cnv: b.csv}", r"omics.cnv: .*\(found 'b.csv'\)"),
        ("{rna: {table: a.csv}, scale: none}", r"omics.scale: a setting, not a table; .* omics.rna.scale"),
        ("{rna: {table: a.csv}, RNA: {table: b.csv}}", "omics tables RNA, rna differ in upper and lower case only"),
        ("rna.csv", r"omics: .*\(found 'rna.csv'\)"),
    ],
)
def test_messages(tmp_path: Path, omics: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        load(tmp_path, omics)


def test_no_table_is_called_what_a_network_calls_its_own(tmp_path: Path) -> None:
    own = [name for name in dir(nn.ModuleDict()) if not name.startswith("_")]
    for name in own:
        with pytest.raises(ExperimentError, match="a part of a network cannot be named so"):
            load(tmp_path, f"{{table: a.csv, name: {name}}}")


def test_teachers_are_tables_of_the_file(tmp_path: Path) -> None:
    several = "{rna: {table: a.csv}, cnv: {table: b.csv}}"
    assert load(tmp_path, several, "model.teacher.tables=[cnv]").model.teacher.tables == ("cnv",)
    with pytest.raises(ExperimentError, match="model.teacher.tables names dna; the omics tables are cnv, rna"):
        load(tmp_path, several, "model.teacher.tables=[dna]")
    # The control without omics keeps the settings of the model.
    assert load(tmp_path, several, "model.teacher.tables=[dna]", "omics=null").omics is None
