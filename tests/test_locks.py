"""One process at a time, and what killed processes leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from momkd.files import remove_leftovers
from momkd.locks import claim

HOLD = """
import sys, time
from pathlib import Path
from momkd.locks import claim
with claim(Path(sys.argv[1])) as holder:
    print("held" if holder is None else holder, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs fcntl")
def test_another_process_is_named_and_death_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "states/.s.lock"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with claim(path) as holder:
            assert holder is not None
            assert holder.endswith(f", process {other.pid}")
        other.send_signal(signal.SIGKILL)
        other.wait(timeout=20)
        assert path.exists()
        with claim(path) as holder:
            assert holder is None
            assert path.read_text().endswith(f", process {os.getpid()}\n")
        assert not path.exists()
    finally:
        other.kill()
        other.wait(timeout=20)
        assert other.stdout is not None
        other.stdout.close()


def test_only_unfinished_files_of_this_slide_are_removed(tmp_path: Path) -> None:
    gone = [".a[1].77.0123abcd.tmp.h5", ".a[1].8.0123abcd.tmp.png"]
    kept = ["a[1].h5", ".a[1].b.77.0123abcd.tmp.h5", ".a1.77.0123abcd.tmp.h5", ".a[1].lock", ".a[1].x.tmp.h5"]
    for name in gone + kept:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, "a[1]")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    remove_leftovers(tmp_path / "absent", "a[1]")
