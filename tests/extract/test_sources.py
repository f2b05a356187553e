"""Files, folders and tables → slides; everything that is wrong at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from momkd.errors import ExtractError
from momkd.extract.settings import ExtractSettings
from momkd.extract.sources import Slide, find_slides


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_are_searched_with_their_subfolders(tmp_path: Path) -> None:
    """As the GDC client leaves slides: one folder each, logs and unfinished files beside."""
    wanted = [tmp_path / "b1/TCGA-X.1.svs", tmp_path / "a2/S.NDPI", tmp_path / "plain.png"]
    touch(*wanted, tmp_path / "a2/logs/S.parcel", tmp_path / ".hidden/T.svs", tmp_path / "a2/.S2.svs")
    assert find_slides([tmp_path]) == [
        Slide("S", tmp_path / "a2/S.NDPI"),
        Slide("TCGA-X.1", tmp_path / "b1/TCGA-X.1.svs"),
        Slide("plain", tmp_path / "plain.png"),
    ]


def test_pictures_of_an_earlier_run_are_no_slides(tmp_path: Path) -> None:
    touch(tmp_path / "a.svs", tmp_path / "out/tiling/a.png")
    assert [slide.path.name for slide in find_slides([tmp_path], out=tmp_path / "out")] == ["a.svs"]


def test_a_table_gives_ids_and_mpp(tmp_path: Path) -> None:
    touch(tmp_path / "in/a.svs", tmp_path / "in/b.svs")
    table = tmp_path / "slides.csv"
    table.write_text("slide_id,file,mpp,stain\n007,in/a.svs,0.25,HE\n,in/b.svs,,HE\n")
    assert find_slides([table]) == [Slide("007", tmp_path / "in/a.svs", 0.25), Slide("b", tmp_path / "in/b.svs")]


def test_a_file_named_twice_is_one_slide(tmp_path: Path) -> None:
    touch(tmp_path / "a.svs")
    assert find_slides([tmp_path, tmp_path / "a.svs"]) == [Slide("a", tmp_path / "a.svs")]


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    touch(tmp_path / "x/a.svs", tmp_path / "y/a.tif")
    table = tmp_path / "slides.csv"
    table.write_text("file,slide_id,mpp\ngone.svs,,\nx/a.svs,q,40\nx/a.svs,r,fine\ny/a.tif,../up,\n,,\n")
    bare = tmp_path / "bare.csv"
    bare.write_text("slide,mpp\na,1\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExtractError) as raised:
        find_slides([tmp_path / "x", tmp_path / "y", table, bare, tmp_path / "empty", tmp_path / "none.svs"])
    text = str(raised.value)
    assert "9 problems" in text
    assert f"line 2: no such file: {tmp_path / 'gone.svs'}" in text
    assert "line 3, column mpp: 40; expected µm per pixel between 0.02 and 20" in text
    assert "line 4: mpp 'fine'; expected a number" in text
    assert "line 5: slide_id '../up' is no file name" in text
    assert "line 6: an empty cell in column file" in text
    assert "bare.csv: no column file; it has slide, mpp" in text
    assert "empty: no slide in this folder or below it" in text
    assert "none.svs: no such file or folder" in text
    assert "slide a: 2 files" in text


def test_two_files_of_one_id_need_a_table(tmp_path: Path) -> None:
    touch(tmp_path / "x/a.svs", tmp_path / "y/a.tif")
    with pytest.raises(ExtractError, match=r"slide a: 2 files: .*x/a\.svs, .*y/a\.tif; expected one file → .*a table"):
        find_slides([tmp_path])


def test_settings_name_every_option_that_is_wrong() -> None:
    with pytest.raises(ExtractError) as raised:
        ExtractSettings(mpp=40, slide_mpp=float("nan"), tissue="hsv", overlap=256, min_tissue=1.5, batch_size=0)
    text = str(raised.value)
    for part in (
        "--mpp: 40; expected µm per pixel between 0.02 and 20 → 40× slides have about 0.25",
        "--slide-mpp: nan",
        "--tissue: 'hsv'; expected one of otsu, entropy, none",
        "--overlap: 256; expected between 0 and 255",
        "--min-tissue: 1.5; expected between 0 and 1",
        "--batch-size: 0; expected 1 or more",
    ):
        assert part in text
