"""The worker process: holds the students and touches every foreign file, so that a bad one cannot harm the service."""

from __future__ import annotations

import logging
import signal
import traceback
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from momkd.errors import MomkdError, ServeError
from momkd.explain.pixels import SlidePixels, check_place, open_whole
from momkd.explain.slide import write_slide
from momkd.explain.told import told, told_prediction
from momkd.extract.sources import Slide, find_slides
from momkd.files import write_json
from momkd.serve.settings import ServeSettings
from momkd.serve.slides import features_of_slide
from momkd.serve.tasks import (
    Catalogue,
    Done,
    Explain,
    Failed,
    Inspect,
    Patch,
    Predict,
    Progress,
    Ready,
    Source,
    Task,
    Tile,
)
from momkd.serve.tiles import jpeg, read_tile
from momkd.serve.view import view_of
from momkd.slides.readers import inspect_bag, read_bag
from momkd.student.reasons import explain
from momkd.study.predict import Ensemble, feature_files, load_model

_LOG = logging.getLogger("momkd.serve")
_TOP, _PATCH_PIXELS, _OPEN_SLIDES = 8, 128, 4

Tell = Callable[[Progress], None]


def work(pipe: Connection, settings: ServeSettings) -> None:
    """Load the models, then answer tasks until the other side hangs up."""
    # Ctrl-C reaches every process of a terminal; the service ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        worker = _Worker(settings)
    except (MomkdError, OSError) as error:
        pipe.send(Failed(str(error), refused=True))
        return
    pipe.send(Ready(worker.cards()))
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer: Done | Failed = Done(worker.do(task, pipe.send))
        except (MomkdError, OSError) as error:
            answer = Failed(str(error), refused=True)
        except MemoryError:
            answer = Failed("it does not fit into memory", refused=True)
        except Exception:  # noqa: BLE001 - a reader of a foreign file may raise anything; the service must go on
            _LOG.error("%s failed:\n%s", type(task).__name__, traceback.format_exc())
            answer = Failed("the service failed at it; its log says how", refused=False)
        pipe.send(answer)


class _Worker:
    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.models = {name: load_model(path, settings.device) for name, path in settings.models.items()}
        self.open = _OpenSlides(settings.slide_mpp)

    def cards(self) -> dict[str, dict[str, Any]]:
        """What the page and the API say of each model."""
        return {name: _card(name, ensemble) for name, ensemble in self.models.items()}

    def do(self, task: Task, tell: Tell) -> Any:
        match task:
            case Catalogue():
                return self._catalogue()
            case Inspect(path, most_bytes):
                return self._inspect(path, most_bytes)
            case Predict(model, path):
                return self._predict(self.models[model], path)
            case Explain():
                return self._explain(task, tell)
            case Tile(source, level, column, row):
                return jpeg(read_tile(self.open(source), level, column, row))
            case Patch(source, x, y, side):
                return jpeg(self.open(source).patch(x, y, side, _PATCH_PIXELS))

    def _catalogue(self) -> list[Source]:
        files = feature_files(self.settings.features)
        slides = {slide.slide_id: slide for slide in find_slides(list(self.settings.slides))}
        return [
            Source(
                slide_id,
                files.get(slide_id),
                slides[slide_id].path if slide_id in slides else None,
                slides[slide_id].mpp if slide_id in slides else None,
            )
            for slide_id in sorted(set(files) | set(slides))
        ]

    def _inspect(self, path: Path, most_bytes: int) -> dict[str, Any]:
        if path.suffix != ".h5":
            pixels = self.open(Source(path.stem, slide=path))
            return {"kind": "slide", "width": pixels.width, "height": pixels.height, "mpp": pixels.canvas.mpp}
        info = inspect_bag(path, slide_mpp=self.settings.slide_mpp)
        unpacked = info.n_patches * info.width * 4
        if unpacked > most_bytes:
            raise ServeError(
                f"{path.name}: {info.n_patches} patches of width {info.width} are {unpacked / 1e9:.1f} GB unpacked; "
                f"expected at most {most_bytes / 1e9:.1f} GB (--max-upload)"
            )
        # Its values too: a truncated or a poisoned file is found before a job is made of it.
        read_bag(path, slide_mpp=self.settings.slide_mpp)
        return {
            "kind": "features",
            "patches": info.n_patches,
            "width": info.width,
            "encoder": info.encoder,
            "coordinates": info.has_coords,
        }

    def _predict(self, ensemble: Ensemble, path: Path) -> dict[str, Any]:
        found = ensemble.predict(read_bag(path, slide_mpp=self.settings.slide_mpp))
        return told_prediction(found, ensemble)

    def _explain(self, task: Explain, tell: Tell) -> dict[str, Any]:
        ensemble, source, settings = self.models[task.model], task.source, self.settings
        slide = None if source.slide is None else Slide(source.slide_id, source.slide, source.mpp)
        features = source.features
        if features is None:
            if slide is None:
                raise ServeError(f"slide {source.slide_id}: neither features nor a slide")
            card = ensemble.students[0].card.features
            features = features_of_slide(slide, card, task.folder / "features", settings, tell)
        tell(Progress("networks"))
        bag = read_bag(features, slide_mpp=source.mpp or settings.slide_mpp)
        # What is told of it goes to people who have no business with the folders of this machine.
        bag = replace(bag, source=Path(bag.source.name))
        reasons = explain(ensemble.students, bag)
        tell(Progress("drawing"))
        student, patch_size = ensemble.students[0], bag.patch_size_level0 or settings.patch_size_level0
        drawn = bag.coords is not None and patch_size is not None
        pixels = None
        if slide is not None and drawn:
            # Opened once, for the pictures and for the tiles that will be asked for.
            pixels = self.open(source)
            check_place(slide, pixels, bag)
        files, notes = write_slide(
            task.folder,
            bag,
            reasons,
            student,
            threshold=ensemble.threshold,
            slide=None if pixels is None else nullcontext(pixels),
            patch_size=patch_size,
            top_count=_TOP,
        )
        view = None
        if bag.coords is not None and patch_size is not None:
            view = view_of(bag, reasons, student.card, patch_size, pixels, _TOP)
        found = told(bag, reasons, ensemble, files, notes)
        write_json(task.folder / "view.json", view)
        write_json(task.folder / "explanation.json", found)
        return {**found, "files": [*files, "explanation.json"], "map": view is not None}


def _card(name: str, ensemble: Ensemble) -> dict[str, Any]:
    card = ensemble.students[0].card
    return {
        "name": name,
        "label": ensemble.label,
        "type": card.task.type,
        "classes": list(ensemble.classes),
        "threshold": ensemble.threshold if card.task.binary else None,
        "networks": sum(len(student.members) for student in ensemble.students),
        "features": asdict(card.features),
        "cohort": card.cohort,
        "validation": card.validation,
        "intended_use": card.intended_use,
    }


class _OpenSlides:
    """The few slides that people look at now, kept open."""

    def __init__(self, slide_mpp: float | None) -> None:
        self.slide_mpp = slide_mpp
        self.kept: OrderedDict[tuple[Path, int], tuple[AbstractContextManager[SlidePixels], SlidePixels]] = (
            OrderedDict()
        )

    def __call__(self, source: Source) -> SlidePixels:
        if source.slide is None:
            raise ServeError(f"slide {source.slide_id}: its pixels are not at hand")
        key = (source.slide, source.slide.stat().st_mtime_ns)
        if key not in self.kept:
            opening = open_whole(Slide(source.slide_id, source.slide, source.mpp), self.slide_mpp)
            self.kept[key] = (opening, opening.__enter__())
            while len(self.kept) > _OPEN_SLIDES:
                _, (oldest, _) = self.kept.popitem(last=False)
                oldest.__exit__(None, None, None)
        self.kept.move_to_end(key)
        return self.kept[key][1]
