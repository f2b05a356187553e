"""Who may enter: a token, a host name of this machine, no foreign page; and headers that keep browsers strict."""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "momkd_token"
# Whether the service lives may be asked by anybody.
_OPEN = frozenset({"/health"})
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
# OpenSeadragon styles its elements inline; nothing that is not ours is ever put into the page as HTML.
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "connect-src 'self'; worker-src blob:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_LOGIN = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,"><title>momkd: token</title>
<meta name="viewport" content="width=device-width, initial-scale=1"></head>
<body><main><h1>momkd</h1>
<p>This service asks for a token. It was printed when the service was started.</p>
<form action="./" method="get"><label>Token <input name="token" type="password" autocomplete="off" required autofocus>
</label> <button>Enter</button></form></main></body></html>
"""


class Guard:
    """ASGI middleware around the whole service.

    With a ``token``, every request but /health needs it: ``Authorization: Bearer …``, or the cookie that the page gets
    from ``/?token=…``. Without one (``loopback`` only), a request must name this machine as its host, so that no page
    of another site reaches it under a name of its own (DNS rebinding). A request that changes something and was sent by
    a page of another origin is refused in both cases.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._answer(scope, Headers(scope=scope))
        await (answer or self.app)(scope, receive, strict)

    def _answer(self, scope: Scope, headers: Headers) -> Response | None:
        """None for a request that may go on."""
        host = headers.get("host", "")
        if self.token is None and host.rsplit(":", 1)[0] not in _LOOPBACK_NAMES and host not in _LOOPBACK_NAMES:
            return _refuse(400, f"host {host!r}: this service answers to localhost only")
        origin = headers.get("origin")
        if scope["method"] not in ("GET", "HEAD") and origin is not None and urlsplit(origin).netloc != host:
            return _refuse(403, f"a page of {origin} may not change anything here")
        if self.token is None or scope["path"] in _OPEN or self._known(headers):
            return None
        return self._enter(scope, headers)

    def _known(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and self._is_token(cookie.value)

    def _is_token(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def _enter(self, scope: Scope, headers: Headers) -> Response:
        """Answer somebody without the token, or with it in the address of the page."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if scope["path"] == "/" and scope["method"] == "GET" and self._is_token(query.pop("token", [""])[0]):
            rest = urlencode(query, doseq=True)
            answer = RedirectResponse("./" + (f"?{rest}" if rest else ""), 303)
            secure = headers.get("x-forwarded-proto", scope["scheme"]) == "https"
            answer.set_cookie(COOKIE, self.token or "", httponly=True, samesite="strict", secure=secure)
            return answer
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return HTMLResponse(_LOGIN, 401, {"www-authenticate": "Bearer"})
        return _refuse(401, "no token, or a wrong one; send Authorization: Bearer …", {"www-authenticate": "Bearer"})


def _refuse(status: int, error: str, headers: dict[str, str] | None = None) -> Response:
    # The body of the request is not read: an oversized one ends here.
    return JSONResponse({"error": error}, status, {"connection": "close", **(headers or {})})
