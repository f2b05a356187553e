"""The whole job: slides to feature files, again and again, killed anywhere, with broken slides among good ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from momkd.errors import ExtractError
from momkd.extract.encoders import load_encoder
from momkd.extract.settings import ExtractSettings
from momkd.extract.slides import Event, ExtractReport, extract_slides
from momkd.files import read_json, sha256_file
from momkd.locks import claim
from momkd.slides.graph import knn_edges
from momkd.slides.readers import read_bag
from momkd.slides.writer import read_notes

pytestmark = pytest.mark.usefixtures("wsi")
Paint, WriteSlide = Callable[..., np.ndarray], Callable[..., Path]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, paint: Paint, write_slide: WriteSlide) -> Path:
    """Two slides in folders of their own, and a plain image without µm per pixel."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("source")
    write_slide(folder / "u1/s1.tif", paint(1200, 1500, [(100, 100, 900, 700)], 1), 0.5, levels=2)
    write_slide(folder / "u2/s2.tif", paint(1000, 1000, [(200, 300, 600, 500)], 2), 0.25)
    Image.fromarray(paint(491, 491, [(0, 0, 491, 491)], 3)).save(folder / "s3.png")
    return folder


@pytest.fixture(scope="module")
def settings(tiny_weights: Path) -> Callable[..., ExtractSettings]:
    """A function (**changes) that returns settings with the small encoder."""

    def make(**changes: Any) -> ExtractSettings:
        usual = {
            "encoder": "test_vit",
            "checkpoint": tiny_weights,
            "patch_size": 128,
            "slide_mpp": 0.5,
            "device": "cpu",
        }
        return ExtractSettings(**{**usual, "batch_size": 8, "workers": 2, **changes})

    return make


Settings = Callable[..., ExtractSettings]


@pytest.fixture(scope="module")
def reference(source: Path, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that was made without interruption."""
    out = tmp_path_factory.mktemp("reference") / "out"
    extract_slides([source], out, settings())
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_slide_becomes_a_feature_file_with_its_geometry(
    source: Path, reference: Path, tiny_weights: Path
) -> None:
    assert {path.name for path in reference.iterdir()} == {
        *("s1.h5", "s2.h5", "s3.h5", "extract.json", "states", "tiling", "summary.md")
    }
    for name, mpp, size in (("s1", 0.5, 128), ("s2", 0.25, 256), ("s3", 0.5, 128)):
        bag, notes = read_bag(reference / f"{name}.h5"), read_notes(reference / f"{name}.h5")
        assert (bag.mpp, bag.patch_size_level0, bag.encoder) == (pytest.approx(mpp, rel=1e-3), size, "test_vit")
        assert (bag.layout, bag.width, str(bag.features.dtype)) == ("momkd", 64, "float16")
        assert bag.coords is not None
        assert len(bag.coords) == bag.n_patches > 2
        assert notes["source_sha256"] == sha256_file(next(source.rglob(f"{name}.*")))
        made_with = json.loads(notes["settings"])
        assert made_with == read_json(reference / "extract.json")
        assert made_with["weights"] == load_encoder("test_vit", tiny_weights, device=torch.device("cpu")).weights
        state = read_json(reference / f"states/{name}.json")
        assert (state["status"], state["patches"]) == ("done", bag.n_patches)
        assert (reference / f"tiling/{name}.jpg").read_bytes().startswith(b"\xff\xd8")


def test_features_are_the_encoders_of_the_patches(source: Path, reference: Path, tiny_weights: Path) -> None:
    """By hand for the plain image, whose patches are slices."""
    from PIL import Image

    bag = read_bag(reference / "s3.h5")
    image = np.asarray(Image.open(source / "s3.png"))
    assert bag.coords is not None
    patches = np.stack([image[y : y + 128, x : x + 128] for x, y in bag.coords])
    encoder = load_encoder("test_vit", tiny_weights, device=torch.device("cpu"))
    with torch.inference_mode():
        expected = encoder.embed(torch.from_numpy(patches).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(bag.features.astype(np.float32), expected, atol=3e-3)


def test_again_changes_nothing(source: Path, reference: Path, settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(reference, out)
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.[hj]*")}
    events: list[Event] = []
    report = extract_slides([source], out, settings(), watch=events.append)
    assert report == ExtractReport(out, (), ("s1", "s2", "s3"), {}, {})
    assert [event.kind for event in events] == ["unchanged"] * 3
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert contents(out) == contents(reference)


def test_workers_change_nothing(source: Path, reference: Path, settings: Settings, tmp_path: Path) -> None:
    extract_slides([source], tmp_path / "out", settings(workers=1))
    assert contents(tmp_path / "out") == contents(reference)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone", "state gone"])
def test_what_is_not_whole_is_made_again(
    source: Path, reference: Path, settings: Settings, tmp_path: Path, damage: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(reference, out)
    target = out / "s2.h5"
    whole = bytearray(target.read_bytes())
    if damage == "truncated":
        target.write_bytes(whole[:-200])
    elif damage == "flipped":
        whole[whole.find(read_bag(target).features.tobytes()) + 100] ^= 1  # of one feature: only the digest can tell
        target.write_bytes(whole)
    elif damage == "gone":
        target.unlink()
    else:
        (out / "states/s2.json").write_text("{")
    report = extract_slides([source], out, settings())
    assert (report.made, report.unchanged) == (("s2",), ("s1", "s3"))
    assert contents(out) == contents(reference)


def test_a_changed_slide_is_made_again_and_a_touched_one_is_not(
    source: Path, settings: Settings, tmp_path: Path, paint: Paint, write_slide: WriteSlide
) -> None:
    slide, other, out = tmp_path / "in/a.tif", tmp_path / "in/b.tif", tmp_path / "out"
    for path, seed in ((slide, 1), (other, 2)):
        write_slide(path, paint(700, 700, [(100, 100, 500, 500)], seed), 0.5)
    extract_slides([slide.parent], out, settings())
    os.utime(other)
    write_slide(slide, paint(700, 700, [(100, 100, 500, 500)], 9), 0.5)
    events: list[Event] = []
    report = extract_slides([slide.parent], out, settings(), watch=events.append)
    assert (report.made, report.unchanged) == (("a",), ("b",))
    assert events[0].note == "the slide's file changed"


def test_another_encoder_or_size_needs_another_folder(
    source: Path, reference: Path, settings: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(reference, out)
    with pytest.raises(ExtractError, match=r"was made with other settings \(patch_size: 128 then, 256 now\).*--out"):
        extract_slides([source], out, settings(patch_size=256))
    assert contents(out) == contents(reference)


def test_broken_slides_are_reported_and_the_others_go_on(source: Path, settings: Settings, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(source, folder)
    whole = (folder / "u1/s1.tif").read_bytes()
    (folder / "a_broken.svs").write_bytes(b"no slide")
    # A slide whose tiles are damaged opens, and fails while it is read.
    holed = bytearray(whole)
    holed[2000 : len(whole) // 2] = b"\xff" * (len(whole) // 2 - 2000)
    (folder / "holed.tif").write_bytes(holed)
    report = extract_slides([folder], out, settings(slide_mpp=None))
    assert report.made == ("s1", "s2")
    assert set(report.failed) == {"a_broken", "holed", "s3"}
    assert "cannot be opened: openslide:" in report.failed["a_broken"]
    assert report.failed["s3"].startswith("no µm per pixel in its metadata")
    assert "--slide-mpp" in report.failed["s3"]
    assert sorted(path.name for path in out.glob("*.h5")) == ["s1.h5", "s2.h5"]
    summary = (out / "summary.md").read_text()
    assert "2 of 5 slides done" in summary
    assert "3 failed" in summary
    assert f"| a_broken | {report.failed['a_broken']} |" in summary
    again = extract_slides([folder], out, settings())
    assert (again.made, again.unchanged, set(again.failed)) == (("s3",), ("s1", "s2"), {"a_broken", "holed"})


def test_a_table_that_corrects_a_slide_makes_it_again(
    tmp_path: Path, settings: Settings, paint: Paint, write_slide: WriteSlide
) -> None:
    write_slide(tmp_path / "a.tif", paint(900, 900, [(100, 100, 700, 700)]), 0.25)
    table, out = tmp_path / "slides.csv", tmp_path / "out"
    table.write_text("file,slide_id,mpp\na.tif,P1,\n")
    extract_slides([table], out, settings())
    assert read_bag(out / "P1.h5").patch_size_level0 == 256
    table.write_text("file,slide_id,mpp\na.tif,P1,0.5\n")
    assert extract_slides([table], out, settings()).made == ("P1",)
    assert read_bag(out / "P1.h5").patch_size_level0 == 128
    assert extract_slides([table], out, settings()).unchanged == ("P1",)


def test_the_graph_is_stored_on_request(source: Path, settings: Settings, tmp_path: Path) -> None:
    extract_slides([source / "s3.png"], tmp_path, settings(graph_k=3, dtype="float32"))
    bag = read_bag(tmp_path / "s3.h5")
    assert bag.coords is not None
    np.testing.assert_array_equal(bag.edges[3], knn_edges(bag.coords, 3))
    assert bag.features.dtype == np.float32


def test_a_slide_that_another_process_holds_is_left_to_it(source: Path, settings: Settings, tmp_path: Path) -> None:
    with claim(tmp_path / "states/.s2.lock"):
        report = extract_slides([source], tmp_path, settings())
    assert (report.made, list(report.held)) == (("s1", "s3"), ["s2"])
    assert "1 not yet done" in (tmp_path / "summary.md").read_text()


def test_two_processes_share_the_slides(source: Path, reference: Path, settings: Settings, tmp_path: Path) -> None:
    """Both run the same command; whoever comes second takes what is free, and the folder is as one would leave it."""
    code = DRIVER + "work(int(sys.argv[4]))"
    arguments = [str(source), str(tmp_path / "out"), str(settings().checkpoint), "0"]
    both = [subprocess.Popen([sys.executable, "-c", code, *arguments]) for _ in range(2)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert extract_slides([source], tmp_path / "out", settings()).made == ()
    assert contents(tmp_path / "out") == contents(reference)


DRIVER = """
import os, signal, sys
from pathlib import Path
import lazyslide, timm, wsidata  # before forking, so that a child need not
import momkd.files
from momkd.extract.settings import ExtractSettings
from momkd.extract.slides import extract_slides

source, folder, checkpoint = map(Path, sys.argv[1:4])
settings = ExtractSettings(
    encoder="test_vit", checkpoint=checkpoint, patch_size=128, slide_mpp=0.5, device="cpu", batch_size=16, workers=2
)

def work(kill_at, out=folder):
    calls = 0
    def count():
        global calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    globals()["calls"] = calls
    real = os.fsync
    def fsync(descriptor):
        count()
        real(descriptor)
    momkd.files.os.fsync = fsync
    extract_slides([source], out, settings, watch=lambda event: count())
"""

# Every place where something has just begun, been computed, been written or been renamed, one after another.
KILL = """
for kill_at in range(1, 200):
    out = folder / str(kill_at)
    statuses = []
    for at in (kill_at, 0):
        child = os.fork()
        if child == 0:
            work(at, out)
            os._exit(0)
        statuses.append(os.waitpid(child, 0)[1])
        if at:
            print(kill_at, statuses[0], ",".join(sorted(path.name for path in out.glob("[!.]*.h5"))), flush=True)
    if statuses[0] == 0:
        break
    if statuses != [signal.SIGKILL, 0]:
        sys.exit(f"{kill_at}: {statuses}")
"""


@pytest.mark.skipif(os.name == "nt", reason="needs fork and SIGKILL")
def test_killed_anywhere_and_run_again_is_as_if_never_killed(
    settings: Settings, tmp_path: Path, paint: Paint, write_slide: WriteSlide
) -> None:
    small = tmp_path / "in"
    for name in ("s1", "s2"):
        write_slide(small / f"{name}.tif", paint(420, 420, [(20, 20, 390, 390)], int(name[1])), 0.5)
    extract_slides([small], tmp_path / "reference", settings())
    expected = contents(tmp_path / "reference")
    arguments = [str(small), str(tmp_path / "out"), str(settings().checkpoint)]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER + KILL, *arguments], capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split(" ") for line in done.stdout.splitlines()]
    killed = [line for line in lines if line[1] == str(int(signal.SIGKILL))]
    assert len(killed) == len(lines) - 1  # all but the last, which came to its end
    assert len(killed) > 25
    assert {line[2] for line in killed} == {"", "s1.h5", "s1.h5,s2.h5"}
    for line in lines:
        assert contents(tmp_path / "out" / line[0]) == expected, f"killed at {line[0]}"


# --- real slides ------------------------------------------------------------------------------------------------------


def test_a_real_slide_at_half_a_micrometre(shared: Path, tmp_path: Path) -> None:
    report = extract_slides([shared / "data/slides/CMU-1-Small-Region.svs"], tmp_path, ExtractSettings(device="cpu"))
    assert report.failed == {}
    bag = read_bag(tmp_path / "CMU-1-Small-Region.h5")
    assert (bag.width, bag.mpp, bag.patch_size_level0, bag.encoder) == (1280, 0.499, 256, "efficientnet-lite0")
    assert 25 <= bag.n_patches <= 40
    assert bag.coords is not None
    # Paper, by eye: the left fifth below the strand and the right sixth hold none.
    assert bag.coords[:, 0].min() > 500
    assert (bag.coords[:, 0] + 256).max() < 1950


def test_a_real_slide_without_mpp(shared: Path, settings: Settings, tmp_path: Path) -> None:
    slide = shared / "data/slides/TCGA-CR-7395-01A-01-TS1.svs"
    report = extract_slides([slide], tmp_path, settings(slide_mpp=None, patch_size=512))
    assert "give --slide-mpp 0.5 (20× slides) or 0.25 (40×)" in report.failed[slide.stem]
    report = extract_slides([slide], tmp_path, settings(patch_size=512))
    assert report.made == (slide.stem,)
    bag = read_bag(tmp_path / f"{slide.stem}.h5")
    assert (bag.mpp, bag.patch_size_level0) == (0.5, 512)
    assert bag.n_patches > 20


def test_real_tiles_are_slides(shared: Path, settings: Settings, tmp_path: Path) -> None:
    tiles = sorted((shared / "data/brca_m2c/images").glob("*.png"))[:4]
    report = extract_slides(tiles, tmp_path, settings(patch_size=224))
    assert (len(report.made), report.failed) == (4, {})
    assert [read_bag(tmp_path / f"{tile.stem}.h5").n_patches for tile in tiles] == [4, 4, 4, 4]
