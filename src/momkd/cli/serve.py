"""The verb that serves: says where to look, runs until it is stopped."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from importlib.util import find_spec
from urllib.parse import urlencode

from rich.console import Console

from momkd.errors import ServeError
from momkd.serve.settings import ServeSettings

_NEEDS = ("fastapi", "uvicorn", "prometheus_client")


def do_serve(settings: ServeSettings) -> None:
    """Listen, print the address of the page, serve until Ctrl-C or SIGTERM."""
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        raise ServeError(f"momkd serve needs {', '.join(missing)}: pip install 'momkd[serve]'")
    import uvicorn

    from momkd.serve.app import create_app

    screen = Console(stderr=True)
    with _listening(settings) as listener:
        port = int(listener.getsockname()[1])
        address = _address(settings, port)

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                logging.getLogger("uvicorn.error").disabled = False
                if not self.should_exit:
                    screen.print(f"Serving {', '.join(settings.models)}: open [bold]{address}[/]", soft_wrap=True)
                    screen.print("Ctrl-C ends it, and forgets what was sent and made.", highlight=False)

        screen.print(f"Loading {', '.join(settings.models)} …", highlight=False)
        service = create_app(settings)
        server = Server(
            uvicorn.Config(service, log_level="warning", access_log=False, server_header=False, lifespan="on")
        )
        # A model that cannot be loaded is told below, in one sentence; uvicorn would print where in the code.
        logging.getLogger("uvicorn.error").disabled = True
        # uvicorn leaves the interpreter where the service cannot start.
        with suppress(SystemExit):
            server.run([listener])
    if not server.started:
        raise ServeError(service.state.failure or "the service did not start")


def _listening(settings: ServeSettings) -> socket.socket:
    """A socket at the address; raises ServeError where it is taken or not ours."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise ServeError(
            f"{settings.host}:{settings.port}: cannot be listened at: {error.strerror or error} → give another --port "
            "(0 takes any free one) or --host"
        ) from error


def _address(settings: ServeSettings, port: int) -> str:
    """The page's address, with the token; an address that stands for all is told as this machine's name."""
    host = socket.gethostname() if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    query = "" if settings.token is None else f"?{urlencode({'token': settings.token})}"
    return f"http://{host}:{port}/{query}"
