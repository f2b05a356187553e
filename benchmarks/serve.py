"""The service under load: requests answered, per second, and memory before and after.

    python benchmarks/serve.py --requests 1000 --in-flight 32

A student with random weights of the default size and one feature file of --patches patches; every request sends the
file and gets its score. Memory: resident bytes of the service and its two workers, after a tenth of the requests and
after all.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from momkd.experiment import ModelSettings, TaskSettings
from momkd.slides.bag import Bag
from momkd.slides.normalize import make_normalizer
from momkd.slides.writer import write_bag
from momkd.student import FeatureGeometry, StudentCard, StudentPredictor, save_student


def main() -> None:
    """Start a service, ask it, print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--patches", type=int, default=1000)
    parser.add_argument("--width", type=int, default=1536)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        body = _feature_file(Path(folder), options.patches, options.width)
        _student(Path(folder) / "student", options.width)
        command = [sys.executable, "-m", "momkd", "serve", str(Path(folder) / "student"), "--port", "0"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            _measure(process, body, options.requests, options.in_flight)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def _measure(process: subprocess.Popen[str], body: bytes, requests: int, in_flight: int) -> None:
    for line in process.stderr or ():
        if found := re.search(r"open (http://\S+)", line):
            base = found.group(1)
            break
    else:
        raise SystemExit("the service did not start")
    asyncio.run(_ask(base, body, max(requests // 10, in_flight), in_flight))
    before = _memory(process.pid)
    start = time.perf_counter()
    wrong = asyncio.run(_ask(base, body, requests, in_flight))
    seconds = time.perf_counter() - start
    after = _memory(process.pid)
    print("| requests | in flight | MB each | not answered with 200 | requests/s | MB before | MB after | growth |")
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| {requests} | {in_flight} | {len(body) / 1e6:.1f} | {wrong} | {requests / seconds:.1f} "
        f"| {before / 1e6:.0f} | {after / 1e6:.0f} | {100 * (after / before - 1):+.1f} % |"
    )


async def _ask(base: str, body: bytes, requests: int, in_flight: int) -> int:
    turns = asyncio.Semaphore(in_flight)
    limits = httpx.Limits(max_connections=in_flight)
    async with httpx.AsyncClient(base_url=base, limits=limits, timeout=600, trust_env=False) as client:

        async def one() -> int:
            async with turns:
                answer = await client.post("/api/predict?model=student&name=A1.h5", content=body)
                return int(answer.status_code != 200)

        return sum(await asyncio.gather(*(one() for _ in range(requests))))


def _memory(pid: int) -> int:
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        pids += [int(child) for child in (task / "children").read_text().split()]
    return 4096 * sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in pids)


def _feature_file(folder: Path, patches: int, width: int) -> bytes:
    rng = np.random.default_rng(0)
    side = int(np.ceil(patches**0.5))
    corners = 512 * np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)[:patches]
    bag = Bag("A1", rng.normal(size=(patches, width)).astype(np.float32), corners, 512.0, 0.25, "toy")
    write_bag(bag, folder / "A1.h5", dtype="float16", producer="benchmark")
    return (folder / "A1.h5").read_bytes()


def _student(folder: Path, width: int) -> None:
    card = StudentCard(
        task=TaskSettings(label="HER2", classes=("negative", "positive")),
        features=FeatureGeometry(width, "toy", 512.0, 0.25, 128.0),
        graph_k=8,
        normalize="none",
        model=ModelSettings(),
        threshold=0.5,
    )
    save_student(StudentPredictor([card.network()], make_normalizer("none"), card), folder)


if __name__ == "__main__":
    main()
