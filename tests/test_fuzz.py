"""Broken files of every kind, a few at random each time the same; benchmarks/reliability/fuzz.py makes very many."""

from __future__ import annotations

import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from benchmarks.reliability.fuzz import READERS, mutate

from momkd.errors import ExperimentError, FeatureFileError, MomkdError
from momkd.experiment import load_experiment
from momkd.slides.readers import read_bag

INPUTS = 60


@pytest.mark.parametrize("name", sorted(READERS))
def test_only_our_own_errors_come_out(name: str, tmp_path: Path) -> None:
    reader, rng = READERS[name], np.random.default_rng(1)
    seeds, target, refused = reader.seeds(tmp_path), tmp_path / f"input{reader.suffix}", 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(INPUTS):
            target.write_bytes(mutate(seeds[number % len(seeds)], rng, seeds))
            try:
                reader.read(target)
            except MomkdError as error:
                refused += bool(str(error).strip())
    assert refused > 0 or name in ("cohort", "checkpoint")


@pytest.mark.parametrize(
    ("which", "size"),
    [("free", 0), ("free", 112), ("free", 2**64 - 8), ("first", 2**64 - 16), ("first", 2**64 - 64)],
    ids=["none", "too short", "back", "wraps to none", "wraps back"],
)
def test_a_heap_without_an_end_is_refused(tmp_path: Path, which: str, size: int) -> None:
    """Found by the fuzzer: HDF5 itself reads such a file for ever."""
    (data, *_) = READERS["hdf5"].seeds(tmp_path)
    heap = data.index(b"GCOL")
    place, end = heap + 16, heap + int.from_bytes(data[heap + 8 : heap + 16], "little")
    while which == "free" and int.from_bytes(data[place : place + 2], "little") != 0:
        place += 16 + -(-int.from_bytes(data[place + 8 : place + 16], "little") // 8) * 8
    assert place < end
    target = tmp_path / "input.h5"
    target.write_bytes(data[: place + 8] + size.to_bytes(8, "little") + data[place + 16 :])
    # In another process: what reads for ever hears no signal.
    script = f"from pathlib import Path; from momkd.slides.readers import read_bag; read_bag(Path({str(target)!r}))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "is damaged (a global heap that has no end)" in found.stderr


def test_an_archive_on_several_disks_is_refused(tmp_path: Path) -> None:
    """Found by the fuzzer: zipfile.is_zipfile raises BadZipFile."""
    target = tmp_path / "input.pt"
    data = bytearray(READERS["tensor"].seeds(tmp_path)[0])
    assert zipfile.is_zipfile(tmp_path / "seed.pt")
    locator = data.rindex(b"PK\x06\x07") if b"PK\x06\x07" in data else None
    if locator is None:
        end = data.rindex(b"PK\x05\x06")
        data[end:end] = b"PK\x06\x07" + (7).to_bytes(4, "little") + bytes(8) + (9).to_bytes(4, "little")
    else:
        data[locator + 16 : locator + 20] = (9).to_bytes(4, "little")
    target.write_bytes(bytes(data))
    with pytest.raises(zipfile.BadZipFile):
        zipfile.is_zipfile(target)
    with pytest.raises(FeatureFileError, match="cannot be read"):
        read_bag(target)


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "a\\0b"])
def test_a_path_that_cannot_be_one(path: str, tmp_path: Path) -> None:
    """Found by the fuzzer: expanduser raises RuntimeError."""
    (tmp_path / "E.yaml").write_text(f'cohort: {{table: "{path}"}}\nfeatures: {{dir: f}}\ntask: {{label: x}}\n')
    with pytest.raises(ExperimentError, match="cohort.table: .* is no path here"):
        load_experiment(tmp_path / "E.yaml")


def test_numbers_of_an_unknown_precision(tmp_path: Path) -> None:
    """Found by the fuzzer: h5py raises ValueError for a float that NumPy does not have."""
    (data, *_) = READERS["hdf5"].seeds(tmp_path)
    # The datatype of float16: size 2, offset 0, precision 16, exponent at 10 of 5 bits, mantissa at 0 of 10; bias.
    numbers = bytes([2, 0, 0, 0, 0, 0, 16, 0, 10, 5, 0, 10])
    place = data.index(numbers) + len(numbers)
    target = tmp_path / "input.h5"
    target.write_bytes(data[:place] + b"\xff\xff\x00\x00" + data[place + 4 :])
    with pytest.raises(FeatureFileError, match="a type that NumPy does not know|is damaged"):
        read_bag(target)


def test_a_disk_that_fills_leaves_a_clear_error(tmp_path: Path) -> None:
    """HDF5 raises RuntimeError, from places where nothing can be caught; the writer does not let it come to that."""
    script = (
        "import resource, signal, sys; from pathlib import Path; import numpy as np\n"
        "from momkd.slides.bag import Bag; from momkd.slides.writer import write_bag\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "bag = Bag('A1', np.ones((500, 50), np.float32), None, None, None, None)\n"
        "write_bag(bag, Path(sys.argv[1]), dtype='float32', producer='test')\n"
    )
    target = tmp_path / "A1.h5"
    found = subprocess.run([sys.executable, "-c", script, str(target)], capture_output=True, text=True, check=False)
    assert found.stderr.splitlines()[-1] == f"OSError: [Errno 27] File too large: '{target}'"
    assert "ignored" not in found.stderr
    assert list(tmp_path.iterdir()) == []
