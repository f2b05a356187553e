"""Importing folders: every layout, resuming after a kill, and broken files among good ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from momkd.errors import FeatureFileError
from momkd.files import sha256_file
from momkd.slides.graph import bag_edges, knn_edges
from momkd.slides.importer import add_graphs, import_features
from momkd.slides.readers import read_bag
from momkd.slides.writer import read_notes

SLIDE = "tcga-cr-7395-01a-01-ts1"
LAYOUTS = {
    "trident": "trident/20x_256px_0px_overlap",
    "clam": "clam",
    "stamp": "stamp",
    "momkd": "momkd/20x_256px_0px_overlap",
    "clam-pt": f"clam/pt_files/{SLIDE}.pt",
}


def make_source(folder: Path, n: int = 4, n_patches: int = 20) -> Path:
    """Write a folder of TRIDENT-like files s0.h5 … and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        rng = np.random.default_rng(i)
        with h5py.File(folder / f"s{i}.h5", "w") as file:
            features = file.create_dataset(
                "features", data=rng.normal(size=(n_patches, 3)).astype(np.float32), chunks=(1, 3)
            )
            features.attrs["encoder"] = "uni"
            coords = file.create_dataset("coords", data=rng.permutation(2 * n_patches).reshape(n_patches, 2) * 256)
            coords.attrs["patch_size_level0"] = 256.0
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_reads_the_same_after_import(shared: Path, tmp_path: Path, layout: str) -> None:
    source = shared / "data/layouts" / LAYOUTS[layout]
    report = import_features(source, tmp_path, dtype="float32", slide_mpp=0.5)
    assert (report.written, report.unchanged, report.problems) == ((SLIDE,), (), ())
    ours = read_bag(tmp_path / f"{SLIDE}.h5")
    notes = read_notes(ours.source)
    original = next(
        path for path in shared.rglob(f"*{SLIDE}*") if path.is_file() and sha256_file(path) == notes["source_sha256"]
    )
    assert notes["source_file"] == original.name
    theirs = read_bag(original, slide_mpp=0.5)
    np.testing.assert_array_equal(ours.features, theirs.features)
    assert (ours.patch_size_level0, ours.mpp, ours.encoder) == (theirs.patch_size_level0, 0.5, theirs.encoder)
    assert (ours.coords is None) == (theirs.coords is None)
    if theirs.coords is not None:
        np.testing.assert_array_equal(ours.coords, theirs.coords)
        np.testing.assert_array_equal(bag_edges(ours, 8), bag_edges(theirs, 8))


def test_default_is_float16_and_half_the_size(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/layouts" / LAYOUTS["trident"]
    import_features(source, tmp_path)
    ours, theirs = read_bag(tmp_path / f"{SLIDE}.h5"), read_bag(next(source.glob(f"features*/{SLIDE}.h5")))
    assert ours.features.dtype == np.float16
    np.testing.assert_array_equal(ours.features, theirs.features.astype(np.float16))
    assert ours.source.stat().st_size < 0.55 * theirs.source.stat().st_size


def test_heavy_tailed_real_features_are_refused_in_float16_and_kept_in_float32(shared: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in sorted((shared / "data/tcga_brca/features").glob("*.h5"))[:3]:
        shutil.copy(path, source)
    report = import_features(source, tmp_path / "out")
    assert len(report.failed) == 3
    assert all(
        "which float16 cannot hold" in str(problem) and "--dtype float32" in str(problem) for problem in report.failed
    )
    assert import_features(source, tmp_path / "out", dtype="float32").failed == ()
    for path in source.iterdir():
        ours = read_bag(tmp_path / "out" / path.name)
        np.testing.assert_array_equal(ours.features, read_bag(path).features)
        assert tuple(ours.edges) == (3,)


def test_graph_is_stored_on_request(tmp_path: Path) -> None:
    import_features(make_source(tmp_path / "in"), tmp_path / "out", graph_k=5)
    bag = read_bag(tmp_path / "out/s2.h5")
    assert bag.coords is not None
    np.testing.assert_array_equal(bag.edges[5], knn_edges(bag.coords, 5))


def test_second_run_changes_nothing_and_progress_is_reported(tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "in"), tmp_path / "out"
    seen: list[tuple[int, int, str]] = []
    first = import_features(source, out, progress=lambda *args: seen.append(args))
    assert first.written == ("s0", "s1", "s2", "s3")
    assert seen == [(1, 4, "s0"), (2, 4, "s1"), (3, 4, "s2"), (4, 4, "s3")]
    stamps = {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.iterdir()}
    second = import_features(source, out)
    assert (second.written, second.unchanged, second.problems) == ((), first.written, ())
    assert {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.iterdir()} == stamps


@pytest.mark.parametrize("settings", [{"dtype": "float32"}, {"graph_k": 3}, {"slide_mpp": 0.25}])
def test_other_settings_write_again_and_say_so(tmp_path: Path, settings: dict[str, Any]) -> None:
    source, out = make_source(tmp_path / "in", 2), tmp_path / "out"
    import_features(source, out)
    report = import_features(source, out, **settings)
    assert report.written == ("s0", "s1")
    assert [p.severity for p in report.problems] == ["note", "note"]
    assert "was made from another source or with other settings; it has been written again" in str(report.problems[0])
    assert import_features(source, out, **settings).unchanged == ("s0", "s1")


def test_changed_source_is_imported_again(tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "in", 2), tmp_path / "out"
    import_features(source, out)
    with h5py.File(source / "s1.h5", "r+") as file:
        file["features"][0, 0] = 9
    report = import_features(source, out)
    assert (report.written, report.unchanged) == (("s1",), ("s0",))
    assert read_bag(out / "s1.h5").features[0, 0] == 9


def test_patch_size_that_appears_later_is_imported(tmp_path: Path) -> None:
    folder = tmp_path / "clam/h5_files"
    folder.mkdir(parents=True)
    with h5py.File(folder / "s.h5", "w") as file:
        file["features"] = np.ones((2, 2), np.float32)
    import_features(tmp_path / "clam", tmp_path / "out")
    (tmp_path / "clam/patches").mkdir()
    with h5py.File(tmp_path / "clam/patches/s.h5", "w") as file:
        file["coords"] = np.zeros((2, 2), int)
        file["coords"].attrs.update({"patch_size": 256, "downsample": [2.0, 2.0]})
    assert import_features(tmp_path / "clam", tmp_path / "out").written == ("s",)
    assert read_bag(tmp_path / "out/s.h5").patch_size_level0 == 512


@pytest.mark.parametrize("damage", ["truncate", "empty", "flip", "foreign"])
def test_damaged_target_is_written_again(tmp_path: Path, damage: str) -> None:
    source, out = make_source(tmp_path / "in", 2, n_patches=400), tmp_path / "out"
    import_features(source, out)
    target = out / "s0.h5"
    whole = target.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # one bit of one feature: only the digest can tell
    foreign = (source / "s0.h5").read_bytes()
    target.write_bytes({"truncate": whole[:-500], "empty": b"", "flip": bytes(flipped), "foreign": foreign}[damage])
    report = import_features(source, out)
    assert (report.written, report.unchanged) == (("s0",), ("s1",))
    assert "was incomplete or damaged; it has been written again" in str(report.problems[0])
    assert target.read_bytes() == whole


def test_leftovers_of_a_killed_run_are_noted_and_never_read(tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "in", 2), tmp_path / "out"
    out.mkdir()
    (out / ".s0.123.abcd.tmp.h5").write_bytes(b"half a file")
    report = import_features(source, out)
    assert report.written == ("s0", "s1")
    assert "1 unfinished files of an interrupted import: .s0.123.abcd.tmp.h5" in str(report.problems[0])
    assert report.failed == ()
    assert import_features(out, tmp_path / "again").written == ("s0", "s1")


def test_what_a_killed_import_left_of_a_slide_goes_with_its_new_file(tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "in", 2), tmp_path / "out"
    out.mkdir()
    for name in (".s0.123.0123abcd.tmp.h5", ".s1.lock", ".other.123.0123abcd.tmp.h5"):
        (out / name).write_bytes(b"half a file")
    report = import_features(source, out)
    assert sorted(path.name for path in out.iterdir()) == [".other.123.0123abcd.tmp.h5", "s0.h5", "s1.h5"]
    assert [problem.severity for problem in report.problems] == ["note"]
    assert "1 unfinished files of an interrupted import: .other" in str(report.problems[0])


KILLED = """
import os, signal, sys
from pathlib import Path
import momkd.files
from momkd.slides.importer import import_features

calls = 0
def fsync(descriptor):
    global calls
    calls += 1
    if calls == 5:  # two calls a file: the third file is written but not yet renamed
        os.kill(os.getpid(), signal.SIGKILL)

momkd.files.os.fsync = fsync
import_features(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_resumes_after_a_real_kill(tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "in"), tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(source), str(out)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert sorted(path.name for path in out.glob("[!.]*")) == ["s0.h5", "s1.h5"]
    assert len(list(out.glob(".s2.*.tmp.h5"))) == 1
    report = import_features(source, out)
    assert (report.unchanged, report.written, report.failed) == (("s0", "s1"), ("s2", "s3"), ())
    import_features(source, tmp_path / "fresh")
    for path in (tmp_path / "fresh").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_broken_files_are_reported_and_the_others_go_on(shared: Path, tmp_path: Path) -> None:
    broken = shared / "data/layouts/broken"
    report = import_features(broken, tmp_path, dtype="float32")
    assert report.written == ("coords_attrs_missing", "coords_missing", "features_float64")
    assert len(report.failed) == 8
    assert len({problem.subject for problem in report.failed}) == 8
    assert {path.stem for path in tmp_path.iterdir()} == set(report.written)


def test_missing_mpp_is_a_problem_of_the_file(shared: Path, tmp_path: Path) -> None:
    report = import_features(shared / "data/layouts" / LAYOUTS["stamp"], tmp_path)
    assert report.written == ()
    assert "features.slide_mpp" in str(report.failed[0])


def test_no_coordinates_for_a_graph_is_a_problem_of_the_file(tmp_path: Path) -> None:
    torch.save(torch.ones(3, 2), tmp_path / "s.pt")
    report = import_features(tmp_path / "s.pt", tmp_path / "out", graph_k=8)
    assert "no coords, so no graph of k 8" in str(report.failed[0])


def test_h5_and_pt_of_one_slide_import_the_h5(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in", 1)
    torch.save(torch.ones(3, 2), source / "s0.pt")
    report = import_features(source, tmp_path / "out")
    assert report.written == ("s0",)
    assert "both s0.h5 and s0.pt" in str(report.problems[0])
    assert read_notes(tmp_path / "out/s0.h5")["source_file"] == "s0.h5"


def test_blurred_features_of_a_cohort_are_one_note(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in", 3)
    for path in source.iterdir():
        with h5py.File(path, "r+") as file:
            file["features"][:, 1] *= 1e-6
    report = import_features(source, tmp_path / "out")
    assert len(report.problems) == 1
    assert "3 slides: in s0, s1, s2: 1 of 3 features stay below 6.1e-05" in str(report.problems[0])


def test_source_note_says_everything(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in", 1)
    import_features(source, tmp_path / "out", graph_k=2)
    notes = read_notes(tmp_path / "out/s0.h5")
    assert notes["producer"].startswith("momkd ")
    assert (notes["source_file"], notes["source_layout"]) == ("s0.h5", "trident")
    assert notes["source_sha256"] == sha256_file(source / "s0.h5")
    assert json.loads(notes["settings"]) == {
        "dtype": "float16",
        "graph_k": 2,
        "patch_size_level0": 256.0,
        "slide_mpp": None,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "int8"}, "--dtype: 'int8'; expected float16 or float32"),
        ({"graph_k": 0}, "--k: 0; expected 1 or more"),
    ],
)
def test_senseless_settings(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FeatureFileError, match=message):
        import_features(make_source(tmp_path / "in", 1), tmp_path / "out", **settings)


def test_nothing_to_import_and_importing_onto_itself(tmp_path: Path) -> None:
    with pytest.raises(FeatureFileError, match="an empty folder"):
        import_features(tmp_path, tmp_path / "out")
    with pytest.raises(FeatureFileError, match="no such folder"):
        import_features(tmp_path / "absent", tmp_path / "out")
    source = make_source(tmp_path / "in", 1)
    before = (source / "s0.h5").read_bytes()
    for start in (source, source / "s0.h5", tmp_path):
        with pytest.raises(FeatureFileError, match="the folder of the source files; expected another folder for --out"):
            import_features(start, tmp_path / "in/../in")
    assert (source / "s0.h5").read_bytes() == before


# --- add_graphs -------------------------------------------------------------------------------------------------------


def test_graphs_of_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_features(make_source(tmp_path / "in", 3), out)
    (out / "s1.h5").write_bytes((out / "s1.h5").read_bytes()[:-100])
    seen: list[str] = []
    report = add_graphs(out, 4, progress=lambda done, total, slide: seen.append(f"{done}/{total} {slide}"))
    assert seen == ["1/3 s0", "2/3 s1", "3/3 s2"]
    assert (report.written, report.unchanged, len(report.failed)) == (("s0", "s2"), (), 1)
    assert "s1.h5: cannot be opened" in str(report.failed[0])
    assert add_graphs(out, 4).unchanged == ("s0", "s2")
    assert tuple(read_bag(out / "s0.h5").edges) == (4,)


def test_a_file_that_got_a_graph_is_still_current(tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "in", 2), tmp_path / "out"
    import_features(source, out)
    add_graphs(out, 4)
    assert import_features(source, out).unchanged == ("s0", "s1")


def test_graphs_need_a_sensible_k(tmp_path: Path) -> None:
    with pytest.raises(FeatureFileError, match="--k: 0; expected 1 or more neighbours"):
        add_graphs(tmp_path, 0)
