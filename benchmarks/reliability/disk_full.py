"""A disk that fills at twenty moments: a clear error, nothing damaged, and the same result once there is room.

    sudo python benchmarks/reliability/disk_full.py --points 20

A tmpfs (so it needs root, and Linux) is filled so that a job has between none and all of the room it needs; then the
filling is removed and the same command is given again. Clear: exit code 1 and an error that names a file and says that
no space is left, no traceback. Resumed: it ends with the bytes of a job that always had room.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kill import SETTINGS, _compare

from momkd.simulator import SimulationSettings, simulate


def main() -> None:
    """Fill, resume, print one Markdown table; exit code 1 unless every point was clear and resumed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20)
    options = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate(
            SimulationSettings(patients=60, external_patients=30, patches=64, slides_missing=0.0), folder / "cohort"
        )
        file, features = folder / "cohort" / "experiment.yaml", folder / "cohort" / "features"
        jobs: dict[str, Callable[[Path], list[str]]] = {
            "crossval": lambda out: ["crossval", str(file), "--out", str(out), "--workers", "1", *SETTINGS],
            "import-features": lambda out: ["import-features", str(features), "--out", str(out), "--k", "8"],
        }
        print("| job | room it needs, KB | points | clear errors | had room enough | resumed to the same bytes |")
        print("|---|---|---|---|---|---|", flush=True)
        for job, command in jobs.items():
            alone = folder / f"{job}-alone"
            _run(command(alone))
            needed = sum(path.stat().st_size for path in alone.rglob("*") if path.is_file())
            points = options.points // len(jobs)
            clear = enough = same = 0
            for number in range(points):
                with _disk(folder / "disk", 8 * needed + (16 << 20)) as disk:
                    room = int(needed * (number + 0.5) / points)
                    _fill(disk, room)
                    found = _run(command(disk / "out"), check=False)
                    if found.returncode == 0:
                        enough += 1
                    elif _is_clear(found):
                        clear += 1
                    else:
                        print(f"{job}, {room} bytes: {found.returncode}\n{found.stderr}", file=sys.stderr)
                    (disk / "filling").unlink()
                    _run(command(disk / "out"))
                    lost, different = _compare(alone, disk / "out")
                    same += not lost and not different
                    for path in (*lost, *different):
                        print(f"{job}, {room} bytes: {path}", file=sys.stderr)
            bad += 2 * points - clear - enough - same
            print(f"| {job} | {needed / 1e3:.0f} | {points} | {clear} | {enough} | {same} |", flush=True)
    raise SystemExit(1 if bad else 0)


@contextmanager
def _disk(place: Path, size: int) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _fill(disk: Path, room: int) -> None:
    """Leave about ``room`` bytes."""
    import shutil

    free = shutil.disk_usage(disk).free
    with (disk / "filling").open("wb") as file:
        left = max(0, free - room)
        while left > 0:
            left -= file.write(bytes(min(left, 1 << 20)))


def _is_clear(found: subprocess.CompletedProcess[str]) -> bool:
    words = " ".join(found.stderr.split())
    return found.returncode == 1 and "No space left on device" in words and "Traceback" not in words


def _run(arguments: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "momkd", *arguments]
    return subprocess.run(command, check=check, capture_output=True, text=True)


if __name__ == "__main__":
    main()
