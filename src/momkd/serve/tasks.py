"""What the web side asks of a worker process, and how it is answered. Plain data; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from momkd.slides.remote import FeatureFile


@dataclass(frozen=True)
class Source:
    """What a slide is made of: a feature file, the slide itself, or both; ``mpp`` where a table of slides gives it."""

    slide_id: str
    features: FeatureFile | None = None
    slide: Path | None = None
    mpp: float | None = None


@dataclass(frozen=True)
class Catalogue:
    """→ [Source] that people may choose from."""


@dataclass(frozen=True)
class Inspect:
    """Open a file that was sent → what it is; ``most_bytes``: of its features when unpacked."""

    path: Path
    most_bytes: int


@dataclass(frozen=True)
class Predict:
    """Score a feature file → prediction."""

    model: str
    path: Path


@dataclass(frozen=True)
class Explain:
    """Score and explain a slide into ``folder`` → what is said of it."""

    model: str
    source: Source
    folder: Path


@dataclass(frozen=True)
class Tile:
    """A square of a slide → JPEG; ``level`` 0 is the whole slide in one pixel, as in Deep Zoom."""

    source: Source
    level: int
    column: int
    row: int


@dataclass(frozen=True)
class Patch:
    """The pixels of a patch, corner and side in level-0 pixels → JPEG."""

    source: Source
    x: int
    y: int
    side: float


Task = Catalogue | Inspect | Predict | Explain | Tile | Patch


@dataclass(frozen=True)
class Ready:
    """The worker has loaded its models: their cards by name."""

    models: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Progress:
    """How far a task is; ``total`` 0 where nobody knows."""

    stage: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Done:
    """The answer."""

    value: Any


@dataclass(frozen=True)
class Failed:
    """Why there is no answer; ``refused``: what was asked or sent is at fault, not the service."""

    message: str
    refused: bool


Answer = Ready | Progress | Done | Failed
