"""How long the service waits for what a request says it will send."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Patience:
    """ASGI middleware: a body of which nothing has come for ``seconds`` ends, as if its sender had gone away.

    Without it, a sender that says a length and sends nothing more keeps its connection, and its file, for ever.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with a body that cannot keep silent."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        whole = False

        async def hurried() -> Message:
            nonlocal whole
            if whole:
                # What comes now is that the sender has gone, whenever that is.
                return await receive()
            try:
                async with asyncio.timeout(self.seconds):
                    message = await receive()
            except TimeoutError:
                message = {"type": "http.disconnect"}
            whole = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        await self.app(scope, hurried, send)
