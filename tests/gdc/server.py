"""A local server that speaks the documented part of the GDC's API, keeps what it is asked, and fails on demand."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self


@dataclass
class Request:
    """One request as it came: its path, its headers, its JSON."""

    path: str
    headers: dict[str, str]
    body: Any = None


@dataclass
class FakeGdc:
    """``files`` and ``cases``: records as the API gives them; ``bodies``: the bytes of a file by id.

    ``faults``: what happens to the next requests of a path, the first taken first: a status (503), "drop" (no answer),
    "hang" (headers, then nothing), ("truncate", n), ("more", n), ("body", bytes), "no range", "wrong range", "gzip",
    ("no range, truncate", n), ("length", n), ("redirect", url), "html", ("retry-after", seconds). A fault of "*" is for
    every path.
    ``on_sent`` is called with the number of bytes of bodies sent so far.
    """

    files: list[dict[str, Any]] = field(default_factory=list)
    cases: list[dict[str, Any]] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    requests: list[Request] = field(default_factory=list)
    warnings: dict[str, str] = field(default_factory=dict)
    page_limit: int = 10_000
    block: int = 1 << 16
    on_sent: Callable[[int], None] | None = None
    sent: int = 0

    def add_file(self, number: int, name: str, body: bytes, **fields: Any) -> dict[str, Any]:
        """Add a file whose id is made of a number."""
        file_id = f"{number:08x}-0000-4000-8000-{number:012x}"
        record = {
            "id": file_id,
            "file_id": file_id,
            "file_name": name,
            "md5sum": hashlib.md5(body, usedforsecurity=False).hexdigest(),
            "file_size": len(body),
            "access": "open",
            "state": "released",
            **fields,
        }
        self.files.append(record)
        self.bodies[file_id] = body
        return record

    def __enter__(self) -> Self:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def asked(self, path: str) -> list[Request]:
        """The requests of a path."""
        return [request for request in self.requests if request.path == path]

    def data_path(self, name: str) -> str:
        """The path of a file's bytes."""
        return next(f"/data/{record['file_id']}" for record in self.files if record["file_name"] == name)

    def search(self, records: list[dict[str, Any]], body: dict[str, Any]) -> dict[str, Any]:
        """Answer a search: filter, sort, cut out a page, and keep only the fields asked for."""
        key, _, order = body["sort"].partition(":")
        hits = sorted(filter(lambda one: _matches(one, body["filters"]), records), key=lambda one: one[key])
        hits = hits[::-1] if order == "desc" else hits
        size = min(int(body["size"]), self.page_limit)
        page = hits[int(body["from"]) :][:size]
        fields = body["fields"].split(",")
        return {
            "data": {
                "hits": [{"id": one[key], **_only(one, fields)} for one in page],
                "pagination": {"count": len(page), "total": len(hits), "size": size, "from": int(body["from"])},
            },
            "warnings": self.warnings,
        }


def _values(record: Any, names: list[str]) -> list[Any]:
    if not names:
        return [record]
    if isinstance(record, list):
        return [value for one in record for value in _values(one, names)]
    return _values(record[names[0]], names[1:]) if isinstance(record, dict) and names[0] in record else []


def _matches(record: dict[str, Any], filters: dict[str, Any]) -> bool:
    content = filters["content"]
    if filters["op"] == "and":
        return all(_matches(record, one) for one in content)
    assert filters["op"] in ("in", "=")
    wanted = content["value"] if isinstance(content["value"], list) else [content["value"]]
    return any(value in wanted for value in _values(record, content["field"].split(".")))


def _only(record: Any, fields: list[str]) -> Any:
    if isinstance(record, list):
        return [_only(one, fields) for one in record]
    if record is None:
        return None
    heads: dict[str, list[str]] = defaultdict(list)
    for name in fields:
        head, _, rest = name.partition(".")
        heads[head] += [rest] if rest else []
    return {head: _only(record[head], rest) if rest else record[head] for head, rest in heads.items() if head in record}


def _handler(gdc: FakeGdc) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: Any) -> None:
            # Names of headers as http.client writes them.
            headers = {name.title(): value for name, value in self.headers.items()}
            gdc.requests.append(Request(self.path, headers, body))
            queue = gdc.faults[self.path] or gdc.faults["*"]
            fault = queue.pop(0) if queue else None
            match fault:
                case int():
                    self._send(fault, b"<html><body>sorry \x1b[31m</body></html>", {})
                case "drop":
                    self.close_connection = True
                case ("redirect", url):
                    self._send(302, b"", {"Location": url})
                case ("retry-after", seconds):
                    self._send(503, b"", {"Retry-After": str(seconds)})
                case "html":
                    self._send(200, b"<html>a proxy</html>", {})
                case _ if self.path.startswith("/data/"):
                    self._send_file(fault)
                case _:
                    self._send_json(body, fault)

        def _send_json(self, body: Any, fault: Any) -> None:
            if self.path == "/status":
                value: Any = {"data_release": "Data Release 45.0 - December 04, 2025", "status": "OK"}
            elif self.path in ("/files", "/cases"):
                value = gdc.search(gdc.files if self.path == "/files" else gdc.cases, body)
            else:
                self._send(404, b'{"message": "not here"}', {})
                return
            data = json.dumps(value).encode()
            if isinstance(fault, tuple) and fault[0] == "truncate":
                self._send(200, data[: fault[1]], {"Content-Length": str(len(data))})
            else:
                self._send(200, data, {})

        def _send_file(self, fault: Any) -> None:
            whole = gdc.bodies.get(self.path.removeprefix("/data/"))
            if whole is None:
                self._send(404, b'{"message": "not found"}', {})
                return
            headers = {"Content-Disposition": 'attachment; filename="../../../evil"'}
            match fault:
                case ("body", data):
                    whole = data
                case ("more", n):
                    whole = whole + b"x" * n
                    headers["Content-Length"] = ""
                case "gzip":
                    headers["Content-Encoding"] = "gzip"
                case ("length", n):
                    headers["Content-Length"] = str(n)
            status, data = 200, whole
            if "Range" in self.headers and not str(fault).strip("('").startswith("no range"):
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                if start >= len(whole):
                    self._send(416, b"", {})
                    return
                start = 0 if fault == "wrong range" else start
                status, data = 206, whole[start:]
                headers["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
            headers.setdefault("Content-Length", str(len(data)))
            if fault == "hang":
                data = b""
            elif isinstance(fault, tuple) and fault[0] in ("truncate", "no range, truncate"):
                data = data[: fault[1]]
            self._send(status, data, headers)
            if fault == "hang":
                threading.Event().wait(1.0)

        def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            try:
                for start in range(0, len(data), gdc.block):
                    block = data[start : start + gdc.block]
                    self.wfile.write(block)
                    if self.path.startswith("/data/"):
                        gdc.sent += len(block)
                        if gdc.on_sent is not None:
                            gdc.on_sent(gdc.sent)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    return Handler
