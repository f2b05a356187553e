"""A service as a user starts it: the command, in a process of its own, at a free port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve: pip install 'momkd[serve]'")

ADDRESS = re.compile(r"open (http://\S+)")


@dataclass
class Running:
    """A service that runs: its page's ``address``, its process, its working folder, and what it said."""

    address: str
    process: subprocess.Popen[str]
    work: Path
    said: list[str] = field(default_factory=list)

    @property
    def base(self) -> str:
        return self.address.split("?")[0].rstrip("/")

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.base, timeout=60, trust_env=False, **options)  # type: ignore[arg-type]

    def left(self) -> list[str]:
        """Every file below the working folder."""
        # os.walk, unlike rglob, bears folders that go away meanwhile.
        found = (Path(folder, name) for folder, _, names in os.walk(self.work) for name in names)
        return sorted(str(path.relative_to(self.work)) for path in found)

    def processes(self) -> list[int]:
        """The service and its workers."""
        found = [self.process.pid]
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            found += [int(pid) for pid in (task / "children").read_text().split()]
        return found


@contextmanager
def serving(work: Path, *arguments: object, env: dict[str, str] | None = None) -> Iterator[Running]:
    command = [sys.executable, "-m", "momkd", "serve", *map(str, arguments), "--port", "0", "--work", str(work)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
    assert process.stderr is not None
    said: list[str] = []
    address = None
    for line in process.stderr:
        said.append(line)
        if address := ADDRESS.search(line):
            break
    if address is None:
        pytest.fail(f"the service did not start: {''.join(said)}")
    running = Running(address.group(1), process, work, said)
    reader = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
    reader.start()
    try:
        yield running
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait()
            reader.join(5)
            process.stderr.close()


@pytest.fixture(scope="session")
def at_hand(tmp_path_factory: pytest.TempPathFactory, make_features: Callable[..., Path]) -> Path:
    """A folder of feature files that people may choose from: A1, and B2 without coordinates."""
    folder = tmp_path_factory.mktemp("at hand")
    make_features(folder, "A1")
    make_features(folder, "B2", columns=1, rows=1, coords=False, seed=1)
    return folder


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory, make_student: Callable[..., Path]) -> Path:
    return make_student(tmp_path_factory.mktemp("models") / "her2")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, student: Path, at_hand: Path) -> Iterator[Running]:
    """One service for all tests that leave it as it was: model her2, slides at hand, 1 MB a file, 6 jobs."""
    work = tmp_path_factory.mktemp("work")
    options = ("--features", at_hand, "--max-upload", 1, "--max-jobs", 6)
    with serving(work, student, *options) as running:
        yield running
