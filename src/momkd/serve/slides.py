"""A slide without features → the features that a student expects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from momkd.errors import ExtractError, ServeError
from momkd.extract.settings import ExtractSettings
from momkd.extract.slides import Event, extract_slides
from momkd.extract.sources import Slide
from momkd.serve.settings import ServeSettings
from momkd.serve.tasks import Progress
from momkd.student import FeatureGeometry


def extraction_for(card: FeatureGeometry, settings: ServeSettings) -> ExtractSettings:
    """How slides must be extracted for a student: its encoder, and patches that are as many µm wide as its own.

    Raises ServeError where the student does not say its encoder and none was given.
    """
    encoder = settings.encoder or card.encoder
    if encoder is None:
        raise ServeError(
            "the student does not say which encoder made its features, so none can be made of this slide → start the "
            "service with --encoder, or send features"
        )
    usual = ExtractSettings(encoder=encoder, checkpoint=settings.checkpoint)
    mpp = usual.mpp if card.patch_um is None else card.patch_um / usual.patch_size
    return ExtractSettings(
        encoder=encoder,
        checkpoint=settings.checkpoint,
        mpp=mpp,
        slide_mpp=settings.slide_mpp,
        device=settings.device,
    )


def features_of_slide(
    slide: Slide, card: FeatureGeometry, out: Path, settings: ServeSettings, tell: Callable[[Progress], None]
) -> Path:
    """Extract one slide into ``out``; raises ServeError and ExtractError where it cannot be."""

    def watch(event: Event) -> None:
        if event.kind == "started":
            tell(Progress("tissue"))
        elif event.kind == "patches":
            tell(Progress("patches", event.done, event.total))

    report = extract_slides([_named(slide, out)], out, extraction_for(card, settings), watch=watch)
    for reason in report.failed.values():
        raise ExtractError(f"slide {slide.slide_id}: {reason}")
    return out / f"{slide.slide_id}.h5"


def _named(slide: Slide, out: Path) -> Path:
    """What names the slide with its id and µm per pixel: the file itself, or a table with its one row."""
    if slide.mpp is None and slide.path.stem == slide.slide_id:
        return slide.path
    import pandas as pd

    table = out.parent / "slide.csv"
    row = {"slide_id": slide.slide_id, "file": str(slide.path.resolve()), "mpp": slide.mpp}
    pd.DataFrame([row]).to_csv(table, index=False)
    return table
