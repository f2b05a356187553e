"""A web server of this machine that holds feature files, for tests of what reads from afar."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


class Store:
    """A folder behind a URL: what was asked of it, bytes ``sent``, and how it misbehaves.

    ``fails``: so many requests; ``cuts``: whole files end half way; ``secret``: who does not know it is refused.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.url, self.asked = folder, "", list[tuple[str, str]]()
        self.fails, self.cuts, self.secret, self.sent = 0, False, "", 0

    def fetched(self, name: str) -> int:
        """How often a file was sent whole."""
        return sum(one == ("GET", f"/{name}") for one in self.asked)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A web server of the folder tmp_path/store, with a cache of its own for whoever reads from it."""
    monkeypatch.setenv("MOMKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("momkd.slides.remote._PAUSE", 0.0)
    folder = tmp_path / "store"
    folder.mkdir()
    with serving(folder) as found:
        yield found


@contextmanager
def serving(folder: Path) -> Iterator[Store]:
    """Serve a folder on this machine: with listings, sizes, ranges and times of change."""
    store = Store(folder)

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            store.asked.append(("HEAD", self.path))
            if not self._misbehave():
                super().do_HEAD()

        def do_GET(self) -> None:
            path, wanted = Path(self.translate_path(self.path)), self.headers.get("Range", "")
            store.asked.append(("RANGE" if wanted else "GET", self.path))
            if self._misbehave():
                return
            if path.is_dir() or not path.is_file():
                super().do_GET()
                return
            content = path.read_bytes()
            start, _, stop = wanted.removeprefix("bytes=").partition("-")
            part = content[int(start) : int(stop) + 1 if stop else None] if wanted else content
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{int(start) + len(part) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            self.wfile.write(part[: len(part) // 2] if store.cuts and not wanted else part)
            store.sent += len(part)
            self.close_connection = store.cuts

        def _misbehave(self) -> bool:
            if store.secret and self.headers.get("Authorization") != store.secret:
                self.send_error(403)
                return True
            store.fails -= 1
            if store.fails >= 0:
                self.send_error(503)
                return True
            return False

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    store.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
