"""Progress bars of a running study, on the terminal's error stream."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from momkd.study.events import Event


class StudyProgress:
    """One bar for the folds of a study and one for each fold at work; plain lines where there is no terminal.

    ``measure``: what the score of an event is called.
    """

    def __init__(self, folds: int, measure: str) -> None:
        self._measure = measure
        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("[progress.description]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._all = self._bars.add_task("folds", total=folds, note="")
        self._running: dict[tuple[str, int, int], TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Take one event of the study."""
        key = (event.run, event.repeat, event.fold)
        name = f"{event.run}{' · ' * bool(event.run)}repeat {event.repeat} fold {event.fold}"
        note = "" if math.isnan(event.score) else f"{self._measure} {event.score:.3f}"
        if event.kind == "started":
            self._running[key] = self._bars.add_task(f"  {name}", total=event.epochs, note="preparing")
        elif event.kind == "epoch":
            self._bars.update(self._running[key], completed=event.epoch, note=note)
        else:
            task = self._running.pop(key, None)
            if task is not None:
                self._bars.remove_task(task)
            self._bars.advance(self._all)
            if not self._console.is_terminal:
                words = {"skipped": "already done", "stopped": "not needed", "failed": f"failed: {event.note}"}
                done = words.get(event.kind, f"done after {event.epoch} epochs, {note}")
                self._console.print(f"{name}: {done}", highlight=False)
