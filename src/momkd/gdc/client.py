"""The GDC's REST API: status, searches page by page, the bytes of a file; failures that may pass are tried again."""

from __future__ import annotations

import http.client
import json
import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from momkd.errors import GdcError
from momkd.gdc.transport import PassingError, check_server, request

SERVER = "https://api.gdc.cancer.gov"
_PAGE = 500
_MOST_BYTES = 256 << 20
_MOST_HITS = 200_000
_LONGEST_BACKOFF = 60.0


class Stopped(Exception):  # noqa: N818 - no error: somebody asked for it
    """The client was told to stop."""


@dataclass(frozen=True)
class Query:
    """A search: ``filters`` in the GDC's JSON, ``fields`` to return; ``key``: a unique field, which is sorted by."""

    endpoint: str
    filters: Mapping[str, Any]
    fields: tuple[str, ...]
    key: str


@dataclass(frozen=True)
class Answer:
    """All hits of a search, and what the server warned of."""

    hits: list[dict[str, Any]]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Client:
    """A server that speaks the GDC's API.

    ``timeout``: seconds without a byte. ``retries``: how often a request that failed passingly is made again, after
    ``backoff`` seconds, then twice as many, and so on, with some chance in it so that workers do not return together.
    ``on_retry`` is told of each. ``stop`` ends waiting and reading in all threads.
    """

    server: str = SERVER
    token: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    retries: int = 5
    backoff: float = 1.0
    on_retry: Callable[[str], None] | None = None
    stop: threading.Event = field(default_factory=threading.Event, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "server", check_server(self.server, token=self.token is not None))

    def data_release(self) -> str:
        """The name of the data release that the server serves, such as "Data Release 45.0 - December 04, 2025"."""
        status = self._json("status", None)
        release = status.get("data_release")
        return _shown(release, 100) if isinstance(release, str) else ""

    def search(self, query: Query) -> Answer:
        """All hits of a query, page by page.

        Raises GdcError where the pages do not add up to what the server announces, or name something twice.
        """
        hits: list[dict[str, Any]] = []
        warnings: set[str] = set()
        total = None
        while total is None or len(hits) < total:
            answer = self._json(query.endpoint, _request_body(query, len(hits)))
            page, announced = _page(query.endpoint, answer)
            warnings |= _warnings(answer)
            total = announced if total is None else total
            hits += page
            if announced != total or len(hits) > total or (not page and len(hits) < total) or total > _MOST_HITS:
                raise GdcError(
                    f"{self.server}/{query.endpoint}: {len(hits)} hits so far, where the server announced {total} at "
                    f"first and {announced} now; expected a list that stays → run the same command again"
                )
        keys = [str(hit.get(query.key)) for hit in hits]
        if len(set(keys)) != len(keys):
            raise GdcError(
                f"{self.server}/{query.endpoint}: {len(keys) - len(set(keys))} hits came twice: the list changed while "
                "it was read → run the same command again"
            )
        return Answer(hits, tuple(sorted(warnings)))

    @contextmanager
    def open_file(self, file_id: str, start: int) -> Iterator[http.client.HTTPResponse]:
        """The body of a file, from byte ``start`` if the server can; one attempt. Raises as ``request``."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        url = f"{self.server}/data/{file_id}"
        with request(url, timeout=self.timeout, headers=headers, token=self.token) as response:
            yield response

    def pause(self, what: str, failed: int, error: PassingError) -> None:
        """Wait before the attempt after ``failed`` failed ones; raises GdcError when there were enough of them."""
        if failed > self.retries:
            raise GdcError(f"{what}: {error}; tried {failed} times → run the same command again later") from error
        backoff = min(self.backoff * 2 ** (failed - 1), _LONGEST_BACKOFF) * random.uniform(0.75, 1.25)
        seconds = max(backoff, error.wait or 0.0)
        if self.on_retry is not None:
            self.on_retry(f"{what}: {error}; again in {seconds:.0f} s")
        if self.stop.wait(seconds):
            raise Stopped

    def _json(self, endpoint: str, body: bytes | None) -> dict[str, Any]:
        url = f"{self.server}/{endpoint}"
        failed = 0
        while True:
            try:
                return self._json_once(url, body)
            except PassingError as error:
                failed += 1
                self.pause(url, failed, error)

    def _json_once(self, url: str, body: bytes | None) -> dict[str, Any]:
        headers = {"Accept": "application/json"} | ({} if body is None else {"Content-Type": "application/json"})
        with request(url, timeout=self.timeout, body=body, headers=headers) as response:
            data = response.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise GdcError(f"{url}: an answer of more than {_MOST_BYTES >> 20} MiB")
        try:
            value = json.loads(data)
        except ValueError as error:
            raise PassingError(f"an answer that is no JSON, or is cut short ({len(data)} bytes)") from error
        if not isinstance(value, dict):
            raise PassingError("an answer that is no JSON object")
        return value


def read_token(path: Path) -> str:
    """The token in a file, as the GDC portal saves it; raises GdcError where there is none."""
    try:
        token = Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise GdcError(f"--token {path}: not readable: {error}; expected the file that the GDC portal saves") from error
    if not re.fullmatch(r"[\x21-\x7e]{20,}", token):
        raise GdcError(f"--token {path}: no token in it; expected the file that the GDC portal saves")
    return token


def _request_body(query: Query, start: int) -> bytes:
    body = {
        "filters": query.filters,
        "fields": ",".join(query.fields),
        "format": "JSON",
        "size": _PAGE,
        "from": start,
        "sort": f"{query.key}:asc",
    }
    return json.dumps(body).encode()


def _page(endpoint: str, answer: Mapping[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """The hits of one page and the announced total."""
    try:
        hits, total = answer["data"]["hits"], answer["data"]["pagination"]["total"]
    except (KeyError, TypeError) as error:
        raise GdcError(f"{endpoint}: an answer without data.hits and data.pagination.total") from error
    if not isinstance(total, int) or not isinstance(hits, list) or not all(isinstance(hit, dict) for hit in hits):
        raise GdcError(f"{endpoint}: an answer whose data.hits is no list of objects, or whose total is no number")
    return hits, total


def _warnings(answer: Mapping[str, Any]) -> set[str]:
    warnings = answer.get("warnings")
    listed = [f"{name}: {text}" for name, text in warnings.items()] if isinstance(warnings, dict) else []
    return {_shown(text, 500) for text in listed}


def _shown(text: str, length: int) -> str:
    """A server's words as one line that a terminal and a comment can hold."""
    return "".join(mark if mark.isascii() and mark.isprintable() else " " for mark in text)[:length]
