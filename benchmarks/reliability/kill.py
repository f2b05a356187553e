"""Work that is killed at random moments, again and again, ends in the bytes of work that was left alone.

    python benchmarks/reliability/kill.py --kills 60
    python benchmarks/reliability/kill.py --kills 60 --power-cut

A small simulated cohort; momkd crossval, import-features and compare, two workers each. Every job is first done once
without a disturbance. Then it is started, killed with SIGKILL (the command and its workers at once) after a random
time, and started again, until it has had --each kills, and then left to end. Lost: a job that does not end, or lacks a
file. Different: a file with other bytes, where only what a clock said is left out (log.txt, seconds, milliseconds).
With --power-cut, what was not synced to the disk is lost at each kill (see power.py).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from power import cut, witness

from momkd.simulator import SimulationSettings, simulate

CLOCKS = {"seconds", "inference_ms", "seconds_per_epoch"}
SETTINGS = [
    "--set",
    "train.epochs=12",
    "--set",
    "train.members=2",
    "--set",
    "cv.folds=3",
    "--set",
    "train.least_steps=0",
]


@dataclass
class Tally:
    """What became of the kills of one job."""

    kills: int = 0
    early: int = 0
    runs: int = 0
    lost: int = 0
    different: int = 0
    damaged: int = 0
    gone: int = 0


def main() -> None:
    """Kill, compare, print one Markdown table; exit code 1 if anything was lost or differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="over all jobs")
    parser.add_argument("--each", type=int, default=4, help="before a job is left to end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--power-cut", action="store_true", help="lose what was not synced at each kill")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate(
            SimulationSettings(patients=60, external_patients=30, patches=64, slides_missing=0.0), folder / "cohort"
        )
        file = folder / "cohort" / "experiment.yaml"
        jobs: dict[str, Callable[[Path], list[str]]] = {
            "crossval": lambda out: ["crossval", str(file), "--out", str(out), "--workers", "2", *SETTINGS],
            "import-features": lambda out: ["import-features", str(folder / "many"), "--out", str(out), "--k", "8"],
            "compare": lambda out: [
                *("compare", str(file), "--out", str(out), "--workers", "2"),
                *("--methods", "momkd,abmil,linear", *SETTINGS),
            ],
        }
        _many_copies(folder / "cohort" / "features", folder / "many")
        print(
            "| job | kills | of them before it had begun | unsynced files damaged | renames undone | ended runs | lost "
            "| different bytes | undisturbed, s |"
        )
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        bad = 0
        for job, command in jobs.items():
            started = time.monotonic()
            _run(command(folder / f"{job}-alone"))
            seconds = time.monotonic() - started
            witnessed = folder / "witness" if options.power_cut else None
            tally = _disturb(job, command, folder, options.kills // len(jobs), options.each, seconds, chance, witnessed)
            bad += tally.lost + tally.different
            print(
                f"| {job} | {tally.kills} | {tally.early} | {tally.damaged} | {tally.gone} | {tally.runs} "
                f"| {tally.lost} | {tally.different} "
                f"| {seconds:.0f} |",
                flush=True,
            )
    raise SystemExit(1 if bad else 0)


def _many_copies(source: Path, target: Path) -> None:
    """The features five times over, so that an import takes longer than the start of Python."""
    target.mkdir()
    for number in range(5):
        for path in sorted(source.glob("*.h5")):
            os.link(path, target / f"{path.stem}-{number}.h5")


def _disturb(
    job: str,
    command: Callable[[Path], list[str]],
    folder: Path,
    kills: int,
    each: int,
    seconds: float,
    chance: random.Random,
    witnessed: Path | None,
) -> Tally:
    tally = Tally()
    while tally.kills < kills:
        out = folder / f"{job}-{tally.runs}"
        for _ in range(min(each, kills - tally.kills)):
            process = _start(command(out), None if witnessed is None else witness(witnessed))
            try:
                process.wait(chance.uniform(0.1, 1.0) * seconds)
                break
            except subprocess.TimeoutExpired:
                tally.early += not out.exists()
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                tally.kills += 1
                if witnessed is not None:
                    damaged, gone = cut(out, witnessed, chance)
                    tally.damaged, tally.gone = tally.damaged + damaged, tally.gone + gone
        try:
            _run(command(out))
        except subprocess.CalledProcessError as error:
            print(error.stderr, file=sys.stderr)
            tally.lost += 1
        lost, different = _compare(folder / f"{job}-alone", out)
        for path in (*lost, *different):
            print(f"{job}, run {tally.runs}: {path}", file=sys.stderr)
        tally.lost += len(lost)
        tally.different += len(different)
        tally.runs += 1
    return tally


def _start(arguments: list[str], environment: dict[str, str] | None) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-m", "momkd", *arguments]
    return subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True, env=environment)


def _run(arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "momkd", *arguments], check=True, capture_output=True)


def _compare(alone: Path, disturbed: Path) -> tuple[list[str], list[str]]:
    """Files that are on one side only, and files with other contents."""
    sides = [{str(path.relative_to(one)) for path in one.rglob("*") if path.is_file()} for one in (alone, disturbed)]
    both = sorted(name for name in sides[0] & sides[1] if not name.endswith("log.txt"))
    different = [name for name in both if _contents(alone / name) != _contents(disturbed / name)]
    return sorted(sides[0] ^ sides[1]), different


def _contents(path: Path) -> object:
    if path.suffix == ".json":
        return _without_clocks(json.loads(path.read_text()))
    if path.name in ("table.csv", "table.md", "table.tex", "sweep.csv"):
        if path.suffix != ".csv":
            return None
        table = pd.read_csv(io.BytesIO(path.read_bytes()), dtype=str)
        return table.drop(columns=[name for name in table if name in CLOCKS]).to_csv()
    return path.read_bytes()


def _without_clocks(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_clocks(one) for key, one in value.items() if key not in CLOCKS}
    if isinstance(value, list):
        return [_without_clocks(one) for one in value]
    return value


if __name__ == "__main__":
    main()
