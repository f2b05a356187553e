"""What a running study tells whoever watches: plain values that cross process borders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Event:
    """Something happened to one fold.

    ``epochs`` is the most there can be; ``score``, of the validation patients, is NaN until it is known; ``run`` names
    the run where there are several; ``note`` says why it failed. A fold
    that is stopped is not done, since those before it say enough of its run.
    """

    kind: Literal["started", "epoch", "done", "skipped", "stopped", "failed"]
    repeat: int
    fold: int
    epoch: int = 0
    epochs: int = 0
    score: float = float("nan")
    run: str = ""
    note: str = ""


Watcher = Callable[[Event], None]


def ignore(_: Event) -> None:
    """Watch nothing."""
