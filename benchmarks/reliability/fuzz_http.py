"""Broken and hostile requests: the service answers every one, never with a 5xx, leaves nothing on its disk, and lives.

    python benchmarks/reliability/fuzz_http.py --requests 50000

A service with a student of random weights; requests of known and unknown methods, paths, queries, headers and bodies
(mutated feature files among them), sent raw over sockets, some mutated as a whole. Afterwards a good request must get
its score.
"""

from __future__ import annotations

import argparse
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from fuzz import READERS, _student_seeds, mutate

METHODS = [b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH", b"BREW"]
PATHS = [
    *(b"/", b"/health", b"/metrics", b"/docs", b"/openapi.json", b"/static/page.js", b"/static/../app.py", b"/nowhere"),
    *(
        b"/api/models",
        b"/api/slides",
        b"/api/predict",
        b"/api/uploads",
        b"/api/jobs",
        b"/api/uploads/x",
        b"/api/jobs/x",
    ),
    *(b"/api/jobs/x/result", b"/api/jobs/x/view", b"/api/jobs/x/files/..%2f..%2fx", b"/api/jobs/x/tiles/1/0_0.jpg"),
    *(b"//", b"/%00", b"/api/jobs/x/tiles/9999999999999999999999/-1_0.jpg", b"/api/jobs/x/patch.jpg?x=1&y=2&side=nan"),
]
QUERIES = [b"", b"model=student&name=input.h5", b"model=other&name=x.h5", b"name=../x.h5", b"name=x.pt", b"name=%00.h5"]
HEADERS = [
    b"content-type: application/json",
    b"content-type: application/octet-stream",
    b"authorization: Bearer x",
    b"cookie: momkd_token=" + b"x" * 2000,
    b"transfer-encoding: chunked",
    b"content-length: -1",
    b"content-length: 99999999999999999999",
    b"expect: 100-continue",
    b"origin: null",
    b"range: bytes=0-18446744073709551615",
    b"upgrade: websocket",
    b"x: " + b"y" * 9000,
]
BODIES = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b'{"model": "student", "uploads": ["x"]}',
    b'{"model": 1e999}',
    b"[" * 5000,
    b"\xff\xfe",
]


# Seconds to wait for an answer, of which a mutated request may have none.
_PATIENCE = 3.0


def main() -> None:
    """Ask, count, print one Markdown table; exit code 1 for a 5xx, a file left, or a service that no longer answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = READERS["hdf5"].seeds(folder)
        _student_seeds(folder)
        work = folder / "work"
        command = ["serve", str(folder / "student"), "--port", "0", "--work", str(work), "--max-upload", "1"]
        process = subprocess.Popen([sys.executable, "-m", "momkd", *command], stderr=subprocess.PIPE, text=True)
        try:
            address = next(found for line in process.stderr or () if (found := re.search(r"//([\d.]+):(\d+)/", line)))
            place = address.group(1), int(address.group(2))
            outcome = Counter(_answer(place, _request(rng, good)) for _ in range(options.requests))
            last = _answer(place, _predict(good[0]))
            until = time.monotonic() + 30
            while _left(work) and time.monotonic() < until:
                time.sleep(0.2)
            left = _left(work)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    kinds = Counter("none" if status == 0 else f"{status // 100}xx" for status in outcome.elements())
    print("| requests | 2xx, 3xx | 4xx | 5xx | never whole: no answer | files left | a good request afterwards |")
    print("|---|---|---|---|---|---|---|")
    fine = kinds["2xx"] + kinds["3xx"] + kinds["1xx"]
    print(f"| {options.requests} | {fine} | {kinds['4xx']} | {kinds['5xx']} | {kinds['none']} | {left} | {last} |")
    raise SystemExit(int(kinds["5xx"] > 0 or left > 0 or last != 200))


def _address(process: subprocess.Popen[str]) -> re.Match[str]:
    for line in process.stderr or ():
        if found := re.search(r"//([\d.]+):(\d+)/", line):
            return found
    raise SystemExit("the service did not start")


def _left(work: Path) -> int:
    return sum(path.is_file() for path in work.rglob("*"))


def _request(rng: np.random.Generator, good: list[bytes]) -> bytes:
    def one(of: list[bytes]) -> bytes:
        return of[int(rng.integers(len(of)))]

    if rng.random() < 0.4:
        body = mutate(one(good), rng, good) if rng.random() < 0.9 else one(good)
        request = _predict(body)
    else:
        body = one(BODIES)
        query = one(QUERIES)
        target = one(PATHS) + (b"?" + query if query else b"")
        lines = [one(METHODS) + b" " + target + b" HTTP/1.1", b"host: 127.0.0.1", b"connection: close"]
        lines += [one(HEADERS) for _ in range(int(rng.integers(0, 3)))]
        if rng.random() < 0.8 and body:
            lines.append(b"content-length: %d" % len(body))
        request = b"\r\n".join(lines) + b"\r\n\r\n" + body
    return mutate(request, rng, [request]) if rng.random() < 0.05 else request


def _predict(body: bytes) -> bytes:
    head = b"POST /api/predict?model=student&name=input.h5 HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def _answer(place: tuple[str, int], request: bytes) -> int:
    """The status; 0 where there is none, because the request was never whole."""
    try:
        with socket.create_connection(place, timeout=_PATIENCE) as raw:
            raw.sendall(request)
            found = re.match(rb"HTTP/1\.1 (\d{3})", raw.recv(4096))
            return int(found.group(1)) if found else 0
    except (ConnectionError, TimeoutError):
        # The service waits for the rest of a request that says that it is longer than it is.
        return 0


if __name__ == "__main__":
    main()
