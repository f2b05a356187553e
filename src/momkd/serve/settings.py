"""What a service is asked to be."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from momkd.errors import Problem, ServeError, raise_problems

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LEAST_TOKEN = 16


@dataclass(frozen=True)
class ServeSettings:
    """How students are served.

    ``models`` {name: run, fold or student folder}. ``features`` and ``slides``: files and folders that people may
    choose from, matched by slide id as in ``momkd explain``; everything else must be uploaded. ``encoder`` and
    ``checkpoint`` make features of a slide that has none (``encoder`` None: the one that the student expects).
    ``slide_mpp`` µm per level-0 pixel and ``patch_size_level0`` where files do not say them. ``work`` holds uploads
    and results while they are kept (None: a temporary folder that goes with the service).

    Limits: ``max_upload`` bytes of a file, of which something must come every ``max_silence`` seconds, ``max_seconds``
    of a job, ``max_jobs`` that are kept or waiting, ``keep_minutes`` after somebody last looked at one. ``token`` None
    means that whoever reaches the port may enter.

    Raises ServeError listing everything that is wrong.
    """

    models: Mapping[str, Path]
    features: Sequence[Path] = ()
    slides: Sequence[Path] = ()
    encoder: str | None = None
    checkpoint: Path | None = None
    slide_mpp: float | None = None
    patch_size_level0: float | None = None
    device: str = "cpu"
    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    work: Path | None = None
    max_upload: int = 4 << 30
    max_silence: float = 30.0
    max_seconds: float = 3600.0
    max_jobs: int = 50
    keep_minutes: float = 60.0

    def __post_init__(self) -> None:
        raise_problems([*self._wrong_models(), *self._wrong_numbers(), *self._wrong_token()], ServeError)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)

    def _wrong_models(self) -> list[Problem]:
        found = [] if self.models else [Problem("MODEL", "none given", "a run, a fold or a student folder")]
        for name in self.models:
            if not _NAME.fullmatch(name):
                expected = "letters, digits, dots, dashes and underscores, at most 64"
                found.append(Problem(f"model name {name!r}", "not usable in an address", expected, "give NAME=FOLDER"))
        for path in (*self.features, *self.slides):
            if not Path(path).exists():
                found.append(Problem(str(path), "no such file or folder", "what people may choose from"))
        return found

    def _wrong_numbers(self) -> list[Problem]:
        bounds = {
            "--port": (self.port, 0, 65535),
            "--max-upload": (self.max_upload, 1, math.inf),
            "--max-silence": (self.max_silence, 1, math.inf),
            "--max-seconds": (self.max_seconds, 1, math.inf),
            "--max-jobs": (self.max_jobs, 1, math.inf),
            "--keep-minutes": (self.keep_minutes, 0.01, math.inf),
        }
        return [
            Problem(name, f"{value:g}", f"between {low:g} and {high:g}")
            for name, (value, low, high) in bounds.items()
            if not low <= value <= high
        ]

    def _wrong_token(self) -> list[Problem]:
        if self.token is None:
            if self.loopback:
                return []
            return [Problem(f"--host {self.host}", "others can reach it, and there is no token", "a token")]
        if len(self.token) < _LEAST_TOKEN or not self.token.isascii() or not self.token.isprintable():
            expected = f"{_LEAST_TOKEN} or more printable ASCII characters"
            return [Problem("the token", f"{len(self.token)} characters", expected, "leave it out to have one made")]
        return []


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, that nobody else can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def named_models(given: Sequence[str]) -> dict[str, Path]:
    """``NAME=FOLDER`` or ``FOLDER`` (named by its last part) → {name: folder}; raises ServeError for a name twice."""
    found: dict[str, Path] = {}
    for one in given:
        name, sign, folder = one.partition("=")
        path = Path(folder if sign else one)
        name = name if sign else path.resolve().name
        if name in found:
            raise ServeError(f"two models are called {name}: {found[name]}, {path} → name one of them: {name}-2={path}")
        found[name] = path
    return found
