"""Broken and hostile files: every reader answers with momkd's own errors, in bounded time and memory.

    python benchmarks/reliability/fuzz.py --inputs 50000
    python benchmarks/reliability/fuzz.py --reader hdf5 --inputs 1000 --seed 7

Valid files are mutated (bits, bytes, pieces cut, doubled, exchanged; numbers and names of headers replaced) and read.
Each reader runs in a process of its own with 4 GB of address space beyond what it starts with, and 10 seconds of its
time an input. Any exception that is no MomkdError, a crash or a hang ends it with exit code 1; the input that did it
stays in --keep. With atheris (pip install atheris), --engine atheris looks for inputs by the code that they reach.
"""

from __future__ import annotations

import argparse
import faulthandler
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np

SECONDS, MEMORY = 10, 4 << 30
Read = Callable[[Path], object]


@dataclass(frozen=True)
class Reader:
    """A reader of files: its suffix, valid seeds made in a folder, and what reads a file."""

    suffix: str
    seeds: Callable[[Path], list[bytes]]
    read: Read


def main() -> None:
    """Fuzz every reader, print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", choices=sorted(READERS), action="append")
    parser.add_argument("--inputs", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("runs") / "fuzz")
    parser.add_argument("--engine", choices=("mutate", "atheris"), default="mutate")
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    print("| reader | inputs | read | refused | slowest, ms | not ours |")
    print("|---|---|---|---|---|---|", flush=True)
    bad = 0
    for name in options.reader or sorted(READERS):
        process = multiprocessing.get_context("spawn").Process(
            target=_atheris if options.engine == "atheris" else _fuzz,
            args=(name, options.inputs, options.seed, options.keep),
        )
        process.start()
        process.join()
        if process.exitcode != 0:
            bad += 1
            print(f"| {name} | ended with exit code {process.exitcode}: {options.keep / name} | | | | 1 |", flush=True)
    raise SystemExit(1 if bad else 0)


def _fuzz(name: str, inputs: int, seed: int, keep: Path) -> None:
    from momkd.errors import MomkdError

    reader, rng = READERS[name], np.random.default_rng([seed, *name.encode()])
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        seeds = reader.seeds(place)
        # What ends the process, even within a library that hears no signal, is found here afterwards.
        target = keep / f"{name}{reader.suffix}"
        for one in seeds:
            target.write_bytes(one)
            reader.read(target)
        _limit()
        outcome: Counter[str] = Counter()
        slowest = 0.0
        for number in range(inputs):
            data = mutate(seeds[number % len(seeds)], rng, seeds)
            target.write_bytes(data)
            started = time.process_time()
            # Of its own time: a busy machine makes nothing hang.
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            faulthandler.dump_traceback_later(20 * SECONDS, exit=True)
            try:
                reader.read(target)
                outcome["read"] += 1
            except MomkdError as error:
                outcome["refused"] += 1
                if not str(error).strip():
                    raise
            except BaseException as error:
                print(f"{name}, input {number}: {error!r}", file=sys.stderr, flush=True)
                raise
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, time.process_time() - started)
        faulthandler.cancel_dump_traceback_later()
        target.unlink()
    print(f"| {name} | {inputs} | {outcome['read']} | {outcome['refused']} | {1000 * slowest:.0f} | 0 |", flush=True)


def _limit() -> None:
    def too_long(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"an input took more than {SECONDS} s")

    signal.signal(signal.SIGPROF, too_long)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def _atheris(name: str, inputs: int, seed: int, keep: Path) -> None:
    import atheris

    reader = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        corpus = keep / f"{name}-corpus"
        corpus.mkdir(exist_ok=True)
        target = Path(folder) / f"input{reader.suffix}"
        # Readers import what they need when they are called: within this block, or nothing of it is seen.
        with atheris.instrument_imports(include=["momkd"]):
            from momkd.errors import MomkdError

            for number, one in enumerate(reader.seeds(Path(folder))):
                (corpus / f"seed-{number}").write_bytes(one)
                target.write_bytes(one)
                reader.read(target)

        def once(data: bytes) -> None:
            target.write_bytes(data)
            try:
                reader.read(target)
            except MomkdError:
                return

        limits = [f"-runs={inputs}", f"-seed={seed + 1}", f"-timeout={SECONDS}", "-rss_limit_mb=6000"]
        atheris.Setup([sys.argv[0], str(corpus), f"-artifact_prefix={keep}/{name}-", *limits], once)
        atheris.Fuzz()


def mutate(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """One to eight changes of a valid file."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if not out:
            break
        at = int(rng.integers(len(out)))
        size = min(int(2 ** rng.integers(0, 10)), len(out) - at)
        match int(rng.integers(9)):
            case 0:
                out[at] ^= 1 << int(rng.integers(8))
            case 1:
                out[at : at + size] = rng.bytes(size)
            case 2:
                del out[at : at + size]
            case 3:
                out[at:at] = out[at : at + size]
            case 4:
                out = out[:at]
            case 5:
                other = others[int(rng.integers(len(others)))]
                start = int(rng.integers(len(other)))
                out[at : at + size] = other[start : start + size]
            case 6:
                word = ODD_NUMBERS[int(rng.integers(len(ODD_NUMBERS)))]
                out[at : at + len(word)] = word
            case 7:
                word = ODD_WORDS[int(rng.integers(len(ODD_WORDS)))]
                out[at:at] = word
            case 8:
                out[at : at + size] = bytes(size)
    return bytes(out[: 4 * len(data) + 4096])


ODD_NUMBERS = [
    *(number.to_bytes(size, "little") for size in (1, 2, 4, 8) for number in (0, 1, 2 ** (8 * size) - 1)),
    *(number.to_bytes(8, "little") for number in (2**31, 2**32, 2**40, 2**62)),
]
ODD_WORDS = [
    *(
        b"nan",
        b"inf",
        b"-1",
        b"1e999",
        b"null",
        b"true",
        b"[",
        b"]",
        b"{",
        b"}",
        b"'",
        b'"',
        b",",
        b"\n",
        b"\t",
        b"\x00",
    ),
    *(b"../../x", b"/etc/passwd", b"!!python/object/apply:os.system ['true']", b"&a *a", b"<<: *x", b"\xff\xfe"),
    *(b"9" * 400, b"a" * 300, b"\xf0\x9f\x94\xac", b"~", b"|", b"# "),
]


# The readers. Imports are inside, so that atheris can watch them.


def _bag() -> object:
    from momkd.slides.bag import Bag

    rng = np.random.default_rng(0)
    grid = 256 * np.stack(np.meshgrid(np.arange(3), np.arange(2)), -1).reshape(-1, 2)
    return Bag("input", rng.normal(size=(6, 4)).astype(np.float32), grid, 256.0, 0.5, "toy")


def _h5_seeds(folder: Path) -> list[bytes]:
    import h5py

    from momkd.slides.writer import with_graph, write_bag

    path = folder / "input.h5"
    seeds = []
    for k in (0, 2):
        bag = _bag()
        write_bag(with_graph(bag, k) if k else bag, path, dtype="float16", producer="fuzz")  # type: ignore[arg-type]
        seeds.append(path.read_bytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=np.ones((6, 4), np.float32), compression="gzip")
        coords = file.create_dataset("coords", data=np.zeros((6, 2), np.int64))
        coords.attrs.update({"patch_size": 256, "patch_level": 0, "level0_magnification": 40})
    return [*seeds, path.read_bytes()]


def _read_bag(path: Path) -> object:
    from momkd.slides.readers import inspect_bag, read_bag

    inspect_bag(path)
    return read_bag(path)


def _pt_seeds(folder: Path) -> list[bytes]:
    import torch

    seeds = []
    for value in (torch.ones(6, 4), torch.ones(4), {"features": torch.ones(6, 4), "coords": torch.zeros(6, 2)}):
        torch.save(value, folder / "seed.pt")
        seeds.append((folder / "seed.pt").read_bytes())
    return [seeds[0], seeds[1]]


def _yaml_seeds(folder: Path) -> list[bytes]:
    from momkd.experiment import load_experiment

    small = folder / "small.yaml"
    small.write_text("cohort: {table: c.csv}\nfeatures: {dir: f}\ntask: {label: HER2, classes: [negative, positive]}\n")
    return [small.read_bytes(), load_experiment(small).to_yaml().encode()]


def _read_yaml(path: Path) -> object:
    from momkd.experiment import load_experiment, load_sweep

    try:
        return load_experiment(path)
    finally:
        from contextlib import suppress

        from momkd.errors import MomkdError

        with suppress(MomkdError):
            load_sweep(path, [], [])


def _csv_seeds(_: Path) -> list[bytes]:
    rows = "".join(f"P{i},S{i},site-{i % 3},{('negative', 'positive')[i % 2]}\n" for i in range(12))
    return [f"patient_id,slide_id,site,HER2\n{rows}".encode(), f"﻿patient_id;slide_id\n{rows}".encode()]


def _read_cohort(path: Path) -> object:
    from momkd.cohort.check import check
    from momkd.experiment import load_experiment

    file = path.with_name("experiment.yaml")
    if not file.is_file():
        (path.parent / "f").mkdir(exist_ok=True)
        file.write_text(
            f"cohort: {{table: {path.name}, group: site}}\nfeatures: {{dir: f}}\n"
            "task: {label: HER2, classes: [negative, positive]}\n"
        )
    return check(load_experiment(file))


def _omics_seeds(_: Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    lines = [",".join(["patient_id", *(f"G{g}" for g in range(5))])]
    lines += [",".join([f"P{i}", *(f"{v:.3f}" for v in rng.normal(size=5))]) for i in range(8)]
    text = "\n".join(lines).encode() + b"\n"
    return [text]


def _packed_omics_seeds(folder: Path) -> list[bytes]:
    import gzip

    return [gzip.compress(_omics_seeds(folder)[0], mtime=0)]


def _read_omics(path: Path) -> object:
    from momkd.omics.table import read_omics

    return read_omics(path, [f"P{i}" for i in range(8)])


def _student_seeds(folder: Path) -> list[bytes]:
    from momkd.experiment import ModelSettings, TaskSettings
    from momkd.slides.normalize import make_normalizer
    from momkd.student import FeatureGeometry, StudentCard, StudentPredictor, save_student

    settings = {"encoder": {"dim": 8}, "memory": {"codes": 2, "dim": 4}, "classifier": {"hidden": 4}}
    card = StudentCard(
        task=TaskSettings(label="HER2", classes=("negative", "positive")),
        features=FeatureGeometry(4, "toy", 256.0, 0.5, 128.0),
        graph_k=2,
        normalize="none",
        model=ModelSettings.model_validate(settings),
        threshold=0.5,
    )
    save_student(StudentPredictor([card.network()], make_normalizer("none"), card), folder / "student")
    names = ("student.json", "student.safetensors")
    return [b"\x00MOMKD-PARTS\x00".join((folder / "student" / name).read_bytes() for name in names)]


def _read_student(path: Path) -> object:
    """The card and the tensors of a student in one input; the digest is made right, or no other fault would be seen."""
    import hashlib
    import re

    from momkd.student import load_student

    card, _, tensors = path.read_bytes().partition(b"\x00MOMKD-PARTS\x00")
    digest = hashlib.sha256(tensors).hexdigest().encode()
    folder = path.parent / "broken"
    folder.mkdir(exist_ok=True)
    (folder / "student.json").write_bytes(re.sub(rb'"sha256": "[0-9a-f]{64}"', b'"sha256": "' + digest + b'"', card))
    (folder / "student.safetensors").write_bytes(tensors)
    return load_student(folder)


def _checkpoint_seeds(folder: Path) -> list[bytes]:
    import torch

    state = {"encoder.weight": torch.ones(8, 4), "module.head.bias": torch.zeros(2)}
    torch.save({"state_dict": state}, folder / "seed.pt")
    return [(folder / "seed.pt").read_bytes()]


def _read_checkpoint(path: Path) -> object:
    from momkd.errors import CheckpointError
    from momkd.study.checkpoint import import_checkpoint

    try:
        return import_checkpoint(path, path.parent / "student")
    except CheckpointError as error:
        # The seed is whole and no MoMKD checkpoint: that it is refused for its tensors is right.
        return error


def _splits_seeds(_: Path) -> list[bytes]:
    roles = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    rows = [f"0,{fold},{roles[(i + 3 * fold) % 12]},P{i}" for fold in range(2) for i in range(12)]
    return ["\n".join(["repeat,fold,role,patient_id", *rows, ""]).encode()]


def _read_splits(path: Path) -> object:
    import pandas as pd

    from momkd.cohort.splits import read_splits
    from momkd.errors import SplitError, raise_problems

    names = [f"P{i}" for i in range(12)]
    people = pd.DataFrame({"label": [i % 2 for i in range(12)], "group": names}, index=pd.Index(names))
    splits, problems = read_splits(path, people, classes=("negative", "positive"))
    raise_problems(problems, SplitError)
    return splits


READERS = {
    "hdf5": Reader(".h5", _h5_seeds, _read_bag),
    "tensor": Reader(".pt", _pt_seeds, _read_bag),
    "experiment": Reader(".yaml", _yaml_seeds, _read_yaml),
    "cohort": Reader(".csv", _csv_seeds, _read_cohort),
    "omics": Reader(".csv", _omics_seeds, _read_omics),
    "omics-gz": Reader(".csv.gz", _packed_omics_seeds, _read_omics),
    "student": Reader(".bin", _student_seeds, _read_student),
    "checkpoint": Reader(".pt", _checkpoint_seeds, _read_checkpoint),
    "splits": Reader(".csv", _splits_seeds, _read_splits),
}


if __name__ == "__main__":
    main()
