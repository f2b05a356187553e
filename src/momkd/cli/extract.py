"""The verb that turns slides into features."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from momkd.cli.render import console
from momkd.extract.settings import ExtractSettings
from momkd.extract.slides import Event, extract_slides
from momkd.parallel import Place


class _Progress:
    """A bar over the patches of the slide at work on a terminal; a line a slide in any case."""

    def __init__(self) -> None:
        self._screen = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bars = Progress(*columns, console=self._screen, disable=not self._screen.is_terminal, transient=True)
        self._task = self.bars.add_task("patches", total=None, visible=False)
        self._since: dict[str, float] = {}
        self.patches = 0
        self.seconds = 0.0

    def __call__(self, event: Event) -> None:
        if event.kind == "started":
            self._since[event.slide_id] = time.monotonic()
            self.bars.reset(self._task, description=event.slide_id, total=None, visible=True)
            if event.note:
                self._line(event, f"made again: {event.note}")
        elif event.kind == "patches":
            # Of several slides at once, the one that spoke last is shown.
            self.bars.update(self._task, description=event.slide_id, completed=event.done, total=event.total)
        elif event.kind == "done":
            seconds = time.monotonic() - self._since.pop(event.slide_id)
            self.patches += event.total
            self.seconds += seconds
            self._line(event, f"{event.total} patches, {seconds:.1f} s")
        elif event.kind == "failed":
            self._line(event, f"[red]failed[/]: {escape(event.note)}")
        elif event.kind == "held":
            self._line(event, f"left to {escape(event.note)}, who works on it")

    def _line(self, event: Event, words: str) -> None:
        self._screen.print(f"{escape(event.slide_id)}: {words}", highlight=False, soft_wrap=True)


def do_extract(sources: list[Path], out: Path, settings: ExtractSettings, place: Place) -> None:
    """Extract with progress, say what there is; exit code 1 if any slide failed."""
    progress = _Progress()
    with progress.bars:
        asking = _ask if sys.stdin.isatty() else None
        report = extract_slides(sources, out, settings, watch=progress, ask_token=asking, place=place)
    parts = [f"{len(report.made)} slides made", f"{len(report.unchanged)} already complete"]
    parts += [f"{len(report.failed)} failed"] + ([f"{len(report.held)} left to others"] if report.held else [])
    each = " in each process" if place.ray else ""
    speed = f"; {progress.patches / progress.seconds:.1f} patches/s{each}" if progress.seconds else ""
    console().print(f"{out}: {', '.join(parts)}{speed}; see {out / 'summary.md'}", soft_wrap=True, highlight=False)
    if report.failed:
        raise typer.Exit(1)


def _ask(message: str) -> str:
    Console(stderr=True).print(message, highlight=False, soft_wrap=True, markup=False)
    return str(
        typer.prompt("Hugging Face token (empty: none)", default="", hide_input=True, show_default=False, err=True)
    )
