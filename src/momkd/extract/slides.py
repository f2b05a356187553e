"""The job: every slide → one feature file; resumable, shared by several processes, and no slide stops another."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from momkd.errors import ExtractError, FeatureFileError
from momkd.extract.encode import choose_device, choose_precision, encode
from momkd.extract.encoders import Encoder, load_encoder
from momkd.extract.faults import require_extra
from momkd.extract.hub import AskToken
from momkd.extract.pictures import draw_tiling
from momkd.extract.settings import ExtractSettings
from momkd.extract.sources import Slide, find_slides
from momkd.extract.state import PICTURES, STATES, SUMMARY, ExtractFolder, SlideState, settings_text
from momkd.extract.stream import stream_patches
from momkd.extract.summary import summary_text
from momkd.extract.tiling import Tiling, named, open_slide, tile
from momkd.files import remove_leftovers, sha256_file, write_text
from momkd.locks import claim
from momkd.parallel import Place, chunks, run_tasks
from momkd.slides.bag import Bag
from momkd.slides.writer import SourceNote, with_graph, write_bag


@dataclass(frozen=True)
class Event:
    """One thing that happened to a slide; ``done`` of ``total`` patches; ``note`` is a reason, or who holds it."""

    kind: Literal["started", "patches", "done", "unchanged", "failed", "held"]
    slide_id: str
    done: int = 0
    total: int = 0
    note: str = ""


Watch = Callable[[Event], None]
# Into so many tasks the slides are divided for a cluster: each loads the encoder once.
_SHARDS = 256


@dataclass(frozen=True)
class ExtractReport:
    """What became of every slide: newly made, left as they were, failed (id → why), held by another process."""

    out: Path
    made: tuple[str, ...]
    unchanged: tuple[str, ...]
    failed: dict[str, str]
    held: dict[str, str]


def extract_slides(
    sources: Sequence[Path],
    out: Path,
    settings: ExtractSettings | None = None,
    *,
    watch: Watch | None = None,
    ask_token: AskToken | None = None,
    place: Place | None = None,
) -> ExtractReport:
    """Write one feature file of momkd's layout in ``out`` for every slide of files, folders and tables.

    Run again, it leaves alone what is whole and was made of the same slide with the same settings, and makes the rest;
    after a kill at any point the folder becomes what it would have been without. Several processes may run the same
    command: each takes slides that no other works on. A slide that cannot be read is reported and the others go on.
    ``place``: where slides are extracted (default: this process). Raises ExtractError where no slide can be (wrong
    options, encoder, another extraction's folder).
    """
    require_extra()
    settings, out = settings or ExtractSettings(), Path(out)
    slides = find_slides([Path(source) for source in sources], out=out)
    job = _make_job(out, settings, watch or _nobody, ask_token)
    job.begin(slides)
    if place is None or not place.ray:
        job.run(slides)
    else:
        make = partial(_make_job, out, settings, _nobody, None)
        run_tasks(chunks(slides, _SHARDS), make, _extract_some, place=place, workers=1, watch=job.take)
    job.summarise(slides)
    return job.report()


def _make_job(out: Path, settings: ExtractSettings, watch: Watch, ask_token: AskToken | None) -> _Job:
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    encoder = load_encoder(settings.encoder, settings.checkpoint, device=device, ask_token=ask_token)
    return _Job(ExtractFolder(out), settings, encoder, device, precision, watch)


def _extract_some(job: _Job, slides: Sequence[Slide], tell: Callable[[Any], None]) -> None:
    job.watch = tell
    job.run(slides)


def _nobody(event: Event) -> None:
    """Watch nothing."""


class _Job:
    """One run over all slides."""

    def __init__(
        self,
        folder: ExtractFolder,
        settings: ExtractSettings,
        encoder: Encoder,
        device: torch.device,
        precision: str,
        watch: Watch,
    ) -> None:
        self.folder, self.settings, self.encoder = folder, settings, encoder
        self.device, self.precision, self.watch = device, precision, watch
        self.identity: dict[str, Any] = {**settings.identity(), **encoder.identity(), "precision": precision}
        self.made: list[str] = []
        self.unchanged: list[str] = []
        self.failed: dict[str, str] = {}
        self.held: dict[str, str] = {}

    def run(self, slides: Sequence[Slide]) -> None:
        """Take every slide that no other process works on."""
        for slide in slides:
            with claim(self.folder.lock(slide.slide_id)) as holder:
                if holder is None:
                    self._one(slide)
                else:
                    self._tell("held", slide, note=holder)

    def report(self) -> ExtractReport:
        """What became of every slide."""
        made, unchanged = tuple(sorted(self.made)), tuple(sorted(self.unchanged))
        return ExtractReport(self.folder.path, made, unchanged, self.failed, self.held)

    def take(self, event: Event) -> None:
        """Note what happened to a slide, here or in another process, and pass it on."""
        if event.kind == "done":
            self.made.append(event.slide_id)
        elif event.kind == "unchanged":
            self.unchanged.append(event.slide_id)
        elif event.kind == "failed":
            self.failed[event.slide_id] = event.note
        elif event.kind == "held":
            self.held[event.slide_id] = event.note
        self.watch(event)

    def begin(self, slides: Sequence[Slide]) -> None:
        with claim(self.folder.path / STATES / ".folder.lock", wait=True):
            self.folder.prepare(self.identity)
            for slide in slides:
                if self.folder.read(slide.slide_id) is None:
                    self.folder.write(SlideState(slide.slide_id, str(slide.path), "pending"))

    def _one(self, slide: Slide) -> None:
        for part in (".", STATES, PICTURES):
            remove_leftovers(self.folder.path / part, slide.slide_id)
        settings = settings_text(self.identity)
        try:
            current, why = self.folder.is_current(slide, settings, self.settings.slide_mpp)
        except OSError as error:
            self._failed(slide, f"cannot be read: {error.strerror or error}")
            return
        if current:
            self._tell("unchanged", slide)
            return
        self._tell("started", slide, note=why)
        try:
            state = self._make(slide, settings)
        except (ExtractError, FeatureFileError) as error:
            # What is there is not of this slide as it is now.
            self.folder.features(slide.slide_id).unlink(missing_ok=True)
            self._failed(slide, str(error).removeprefix(f"{named(slide)}: "))
            return
        self.folder.write(state)
        self._tell("done", slide, state.patches, state.patches)

    def _failed(self, slide: Slide, reason: str) -> None:
        self.folder.write(SlideState(slide.slide_id, str(slide.path), "failed", reason))
        self._tell("failed", slide, note=reason)

    def _make(self, slide: Slide, settings: str) -> SlideState:
        """Extract one slide: its picture, then its features, each whole or not there."""
        before = slide.path.stat()
        with ThreadPoolExecutor(1) as beside:
            digest = beside.submit(sha256_file, slide.path)
            with open_slide(slide, self.settings) as (opened, mpp_from):
                tiling = tile(slide, opened, mpp_from, self.settings)
                features = self._features(slide, opened, tiling)
            note = SourceNote(slide.path.name, digest.result(), settings=settings)
        bag = Bag(
            slide_id=slide.slide_id,
            features=features,
            coords=tiling.coords,
            patch_size_level0=float(tiling.patch_size_level0),
            mpp=tiling.mpp,
            encoder=self.encoder.name,
        )
        if self.settings.graph_k is not None:
            bag = with_graph(bag, self.settings.graph_k)
        draw_tiling(tiling, self.folder.picture(slide.slide_id))
        target, producer = self.folder.features(slide.slide_id), f"momkd {version('momkd')} extract"
        write_bag(bag, target, dtype=self.settings.dtype, producer=producer, source_note=note)
        return SlideState(
            slide.slide_id,
            str(slide.path),
            "done",
            patches=len(tiling.coords),
            tissue_mm2=None if self.settings.tissue == "none" else round(tiling.tissue_mm2, 4),
            mpp=tiling.mpp,
            mpp_from=tiling.mpp_from,
            size=before.st_size,
            mtime_ns=before.st_mtime_ns,
        )

    def _features(self, slide: Slide, opened: Any, tiling: Tiling) -> Any:
        settings, total = self.settings, len(tiling.requests)
        batches = stream_patches(
            opened.reader,
            tiling.requests,
            settings.patch_size,
            batch_size=settings.batch_size,
            workers=settings.workers or min(8, os.cpu_count() or 1),
        )
        try:
            return encode(
                self.encoder,
                batches,
                total,
                device=self.device,
                precision=self.precision,
                dtype=settings.dtype,
                watch=lambda done: self._tell("patches", slide, done, total),
            )
        finally:
            batches.close()

    def summarise(self, slides: Sequence[Slide]) -> None:
        states = [self.folder.read(slide.slide_id) for slide in slides]
        known = [state for state in states if state is not None]
        with claim(self.folder.path / STATES / ".folder.lock", wait=True):
            remove_leftovers(self.folder.path, "summary")
            remove_leftovers(self.folder.path, "extract")
            write_text(self.folder.path / SUMMARY, summary_text(self.identity, known))

    def _tell(self, kind: Any, slide: Slide, done: int = 0, total: int = 0, note: str = "") -> None:
        self.take(Event(kind, slide.slide_id, done, total, note))
