"""One HTTP request, and which of its failures may pass; the standard library's client, nothing more."""

from __future__ import annotations

import email.message
import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, cast
from urllib.parse import urlsplit

from momkd.errors import GdcError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT = 120.0
_HINTS = {
    401: "give a valid token: --token FILE (tokens of the GDC portal expire after 30 days)",
    403: "give a token of somebody who may see it: --token FILE",
    404: "the GDC may have replaced it: run momkd gdc plan again",
}


class PassingError(Exception):
    """A failure that may pass: a status such as 503, a timeout, a broken connection, a body cut short.

    ``wait``: seconds that the server asks for, if it does.
    """

    def __init__(self, found: str, wait: float | None = None) -> None:
        super().__init__(found)
        self.wait = wait


class RangeError(PassingError):
    """The server does not give the rest of a file from where it was asked to."""


def check_server(server: str, *, token: bool = False) -> str:
    """Return a server's address without a slash at the end.

    Raises GdcError for what is no HTTP address, and for a token that would travel unencrypted.
    """
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in server:
        raise GdcError(f"--server {server!r}: no address of a server; expected such as https://api.gdc.cancer.gov")
    if token and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise GdcError(f"--server {server}: a token must not travel unencrypted; expected https://")
    return server.rstrip("/")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to anything else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        allowed = ("https",) if urlsplit(req.full_url).scheme == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            raise GdcError(f"{req.full_url}: the server redirects to {newurl!r}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS, through the proxy that the environment names; no file: and no ftp: addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


@contextmanager
def request(
    url: str, *, timeout: float, body: bytes | None = None, headers: Mapping[str, str], token: str | None = None
) -> Iterator[http.client.HTTPResponse]:
    """Open one address and yield the response; failures inside the block are sorted as well.

    ``timeout``: seconds without a byte. ``token`` goes to this address only, never along a redirect. Raises
    PassingError for what may pass, GdcError for the rest.
    """
    # Files must come as they are: their sizes and digests are those of the plain bytes.
    every = {"User-Agent": "momkd", "Accept-Encoding": "identity", **headers}
    asked = urllib.request.Request(url, data=body, headers=every)  # noqa: S310 - the opener knows http and https only
    if token is not None:
        asked.add_unredirected_header("X-Auth-Token", token)
    try:
        with cast("http.client.HTTPResponse", _opener().open(asked, timeout=timeout)) as response:
            yield response
    except urllib.error.HTTPError as error:
        with error:
            raise _of_status(url, error) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            mend = "behind a proxy that re-signs traffic, set SSL_CERT_FILE to its certificate"
            raise GdcError(f"{url}: its certificate cannot be verified: {error.reason} → {mend}") from error
        raise PassingError(f"no connection: {error.reason}") from error
    except (TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
        raise PassingError(f"the connection broke: {error or type(error).__name__}") from error


def _of_status(url: str, error: urllib.error.HTTPError) -> Exception:
    found = f"the server answers {error.code} {_words(str(error.reason))}"
    if error.code == 416:
        return RangeError(found)
    if error.code in _PASSING_STATUS:
        return PassingError(found, _wanted_wait(error.headers))
    try:
        text = error.read(2000).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        text = ""
    words = _words(text)
    hint = _HINTS.get(error.code)
    return GdcError(f"{url}: {found}{f' ({words})' if words else ''}{f' → {hint}' if hint else ''}")


def _words(text: str) -> str:
    """What a server says, as a terminal can show it: no control characters, no page of HTML."""
    return " ".join(re.sub(r"<[^>]*>|[^\x20-\x7e]", " ", text).split())[:200]


def _wanted_wait(headers: email.message.Message) -> float | None:
    """Seconds of Retry-After; a date, or nonsense, is no wish."""
    text = headers.get("Retry-After", "")
    return min(float(text), _LONGEST_WAIT) if re.fullmatch(r"\d{1,6}", text.strip()) else None
