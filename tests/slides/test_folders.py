"""Finding the files of a cohort."""

from __future__ import annotations

from pathlib import Path

import pytest

from momkd.errors import FeatureFileError
from momkd.slides.folders import feature_folder, find_features


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_finds_h5_before_pt_and_says_so(tmp_path: Path) -> None:
    touch(tmp_path, "a.h5", "b.pt", "c.h5", "c.pt", "unused.h5", ".d.1.tmp.h5", "e.txt")
    found, problems = find_features(tmp_path, ["c", "b", "a", "a"])
    assert found == {"a": tmp_path / "a.h5", "b": tmp_path / "b.pt", "c": tmp_path / "c.h5"}
    assert list(found) == ["a", "b", "c"]
    assert [(p.subject, p.severity) for p in problems] == [("c", "note")]
    assert "both c.h5 and c.pt" in str(problems[0])
    assert "c.h5 is used" in str(problems[0])


def test_slide_ids_with_dots_are_whole(tmp_path: Path) -> None:
    name = "TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF"
    touch(tmp_path, f"{name}.h5")
    assert find_features(tmp_path, [name]) == ({name: tmp_path / f"{name}.h5"}, [])


def test_missing_files_are_all_listed_with_the_nearest_name(tmp_path: Path) -> None:
    touch(tmp_path, "TCGA-1.UUID.h5", "slide2.h5", "z.h5")
    found, problems = find_features(tmp_path, ["slide2.svs", "TCGA-1", "gone"])
    assert found == {}
    assert [p.subject for p in problems] == ["TCGA-1", "gone", "slide2.svs"]
    assert all(p.severity == "error" for p in problems)
    texts = list(map(str, problems))
    assert f"no feature file in {tmp_path}; expected TCGA-1.h5 or TCGA-1.pt → is TCGA-1.UUID meant?" in texts[0]
    assert "cohort.exclude" in texts[1]
    assert "is slide2 meant?" in texts[2]


def test_hidden_and_foreign_files_are_not_features(tmp_path: Path) -> None:
    touch(tmp_path, ".a.123.abc.tmp.h5", "a.csv", "a.txt/notes")
    found, problems = find_features(tmp_path, ["a"])
    assert found == {}
    assert "no feature file; it holds a.csv, a.txt; expected files <slide>.h5, <slide>.zarr or <slide>.pt" in str(
        problems[0]
    )


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("a.h5", "sub/b.h5"), "."),
        (("h5_files/a.h5", "pt_files/a.pt", "patches/a.h5", "masks/a.jpg"), "h5_files"),
        (("pt_files/a.pt", "patches/a.h5"), "pt_files"),
        (("features_uni/a.h5", "patches/a_patches.h5"), "features_uni"),
        (("uni-0123abcd/a.h5",), "uni-0123abcd"),
        (("graph_features/a.h5", ".hidden/a.h5"), "graph_features"),
    ],
)
def test_root_folders_of_tools(tmp_path: Path, names: tuple[str, ...], chosen: str) -> None:
    assert feature_folder(touch(tmp_path, *names)) == tmp_path / chosen


def test_several_encoders_are_not_guessed_between(tmp_path: Path) -> None:
    touch(tmp_path, "features_uni/a.h5", "features_conch/a.h5")
    with pytest.raises(
        FeatureFileError, match="several folders of features: features_conch, features_uni; expected one"
    ):
        feature_folder(tmp_path)
    assert "several folders" in str(find_features(tmp_path, ["a"])[1][0])


def test_absent_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(FeatureFileError, match="no such folder"):
        feature_folder(tmp_path / "absent")
    with pytest.raises(FeatureFileError, match="an empty folder"):
        feature_folder(tmp_path)
    with pytest.raises(FeatureFileError, match="a file; expected a folder"):
        feature_folder(touch(tmp_path, "f.h5") / "f.h5")
