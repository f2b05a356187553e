"""The job: slides → one folder each, an index page, and if asked for a measure of how true the maps are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from momkd.errors import ExplainError, MomkdError, StudentError, summarise
from momkd.explain.faithful import SHARES, area, curves, highest_first, paired_p
from momkd.explain.index import write_index
from momkd.explain.pictures import draw_faithfulness
from momkd.explain.pixels import open_pixels
from momkd.explain.slide import write_slide
from momkd.explain.told import told
from momkd.extract.sources import Slide, find_slides
from momkd.files import atomic_path, read_json, remove_leftovers, write_json, write_text
from momkd.slides.bag import Bag
from momkd.slides.cache import file_sha256
from momkd.slides.mpp import SlideMpp
from momkd.slides.readers import read_bag
from momkd.slides.remote import FeatureFile
from momkd.student.reasons import SlideReasons, explain
from momkd.study.predict import Ensemble, feature_files, load_model
from momkd.study.run_folder import write_csv

EXPLANATION, FAITHFULNESS = "explanation.json", "faithfulness.csv"
# Orders of patches that faithfulness compares with the first map's; random ones so many times.
_RANDOM_DRAWS = 5


@dataclass(frozen=True)
class ExplainSettings:
    """How slides are explained.

    ``patch_size_level0``: for feature files that do not say it. ``top``: patches in a row of a picture. ``member``:
    whose prototypes are shown. ``faithfulness``: measure deletion and insertion curves, which takes some hundred
    predictions a slide.
    """

    patch_size_level0: float | None = None
    top: int = 8
    member: int = 0
    faithfulness: bool = False


@dataclass(frozen=True)
class Event:
    """What happened to a slide; ``note`` says why it failed, or what could not be drawn."""

    kind: Literal["done", "unchanged", "failed"]
    slide_id: str
    note: str = ""


@dataclass
class ExplainReport:
    """What became of every slide: made now, left as they were, failed (id → why); notes on what was not drawn."""

    out: Path
    made: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    faithfulness: pd.DataFrame | None = None


def explain_slides(
    model: Path,
    sources: Sequence[str | Path],
    out: Path,
    settings: ExplainSettings | None = None,
    *,
    slides: Sequence[Path] = (),
    slide_mpp: SlideMpp = None,
    device: str = "cpu",
    force: bool = False,
    watch: Callable[[Event], None] | None = None,
) -> ExplainReport:
    """Explain feature files, or all those of folders, by a run, a fold or a student, into ``out``/<slide_id>/.

    ``slides``: files, folders or tables of the slides that the features were cut from, matched by id; without them maps
    are drawn on white paper. Run again, it makes only what is not there or has changed. A slide that fails is reported
    and the others go on. ``force``: explain features of another encoder or patch size too. Raises StudentError and
    FeatureFileError where no slide can be explained.
    """
    settings = settings or ExplainSettings()
    ensemble, files = load_model(model, device, force=force), feature_files(sources)
    known = {slide.slide_id: slide for slide in find_slides(list(slides))} if slides else {}
    if known and not set(known) & set(files):
        raise ExplainError(
            f"none of the {len(known)} slides has the id of a feature file: slides {summarise(sorted(known))}; "
            f"features {summarise(sorted(files))}; name the slide file as the features, or give a "
            "table with slide_id and file"
        )
    job = _Job(Path(out), model, ensemble, settings, slide_mpp, watch or _nobody)
    for slide_id, path in sorted(files.items()):
        job.one(slide_id, path, known.get(slide_id))
    job.finish(sorted(files))
    return job.report


def _nobody(event: Event) -> None:
    """Watch nothing."""


class _Job:
    def __init__(
        self,
        out: Path,
        model: Path,
        ensemble: Ensemble,
        settings: ExplainSettings,
        slide_mpp: SlideMpp,
        watch: Callable[[Event], None],
    ) -> None:
        self.model, self.ensemble, self.settings, self.slide_mpp = model, ensemble, settings, slide_mpp
        self.watch, self.report = watch, ExplainReport(out)
        self.identity = _digest([student.digest() for student in ensemble.students], asdict(settings))

    def one(self, slide_id: str, path: FeatureFile, slide: Slide | None) -> None:
        """Explain one slide, or see that nothing has changed."""
        folder, report = self.report.out / slide_id, self.report
        try:
            identity = _digest(self.identity, file_sha256(path), _stamp(slide), version("momkd"))
            if _made_of(folder) == identity:
                report.unchanged.append(slide_id)
                self.watch(Event("unchanged", slide_id))
                return
            notes = self._explain(folder, read_bag(path, slide_mpp=self.slide_mpp), slide, identity)
        except (MomkdError, OSError) as error:
            report.failed[slide_id] = str(error)
            self.watch(Event("failed", slide_id, str(error)))
            return
        report.made.append(slide_id)
        report.notes += notes
        self.watch(Event("done", slide_id, "; ".join(notes)))

    def _explain(self, folder: Path, bag: Bag, slide: Slide | None, identity: str) -> list[str]:
        ensemble, settings = self.ensemble, self.settings
        reasons = explain(ensemble.students, bag, member=settings.member)
        _clear(folder)
        student = ensemble.students[0]
        files, notes = write_slide(
            folder,
            bag,
            reasons,
            student,
            threshold=ensemble.threshold,
            slide=None if slide is None else open_pixels(slide, bag),
            patch_size=bag.patch_size_level0 or settings.patch_size_level0,
            top_count=settings.top,
        )
        if settings.faithfulness and bag.n_patches > 1:
            write_csv(folder / FAITHFULNESS, self._faithfulness(bag, reasons))
            files.append(FAITHFULNESS)
        origin = {"made_of": identity, "model": str(self.model)}
        write_json(folder / EXPLANATION, {**origin, **told(bag, reasons, ensemble, files, notes)})
        return notes

    def _faithfulness(self, bag: Bag, reasons: SlideReasons) -> pd.DataFrame:
        """One row an order and share: what the score is when patches have gone, or have come."""
        if not reasons.influence:
            raise StudentError(
                f"{self.ensemble.students[0].card.model.name} has no influence to measure; leave --faithfulness out"
            )
        column, influence = next(iter(reasons.influence.items()))
        rows = []
        for order, rankings in _orders(bag.slide_id, influence, reasons).items():
            found = [curves(bag, ranking, lambda part: self._score(part, column)) for ranking in rankings]
            deletion = np.mean([one.deletion for one in found], axis=0)
            insertion = np.mean([one.insertion for one in found], axis=0)
            rows += [(bag.slide_id, order, *of_share) for of_share in zip(SHARES, deletion, insertion, strict=True)]
        return pd.DataFrame(rows, columns=["slide_id", "order", "share", "deletion", "insertion"])

    def _score(self, bag: Bag, column: str) -> float:
        """What influence is told of: log-odds of a class by the mean probability, or the value."""
        values, classes = self.ensemble.predict(bag).values, self.ensemble.classes
        if not classes:
            return float(values[0])
        probability = torch.tensor(float(values[classes.index(column)]), dtype=torch.float64)
        return float(torch.logit(probability, eps=1e-12))

    def finish(self, slide_ids: Sequence[str]) -> None:
        """The index, and the faithfulness of all slides together."""
        report = self.report
        tables = [report.out / slide_id / FAITHFULNESS for slide_id in slide_ids if slide_id not in report.failed]
        tables = [path for path in tables if path.is_file()]
        if self.settings.faithfulness and tables:
            curves_of_all = pd.concat([pd.read_csv(path, dtype={"slide_id": str}) for path in tables])
            report.faithfulness = summarise_faithfulness(curves_of_all)
            with atomic_path(report.out / FAITHFULNESS) as temporary:
                report.faithfulness.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
            draw_faithfulness(curves_of_all, report.out / "faithfulness.png")
        found = [read_json(path) for slide_id in slide_ids if (path := report.out / slide_id / EXPLANATION).is_file()]
        if found:
            write_text(report.out / "index.html", write_index(found, report.failed, report.faithfulness))


def summarise_faithfulness(found: pd.DataFrame) -> pd.DataFrame:
    """One row an order: mean area under deletion and insertion over slides, and p against the random order."""
    areas = found.groupby(["order", "slide_id"], sort=False)[["deletion", "insertion"]].agg(area).reset_index()
    random = areas[areas["order"] == "random"].set_index("slide_id")
    rows = []
    for order, own in areas.groupby("order", sort=False):
        row: dict[str, object] = {"order": order, "slides": len(own)}
        for curve in ("deletion", "insertion"):
            other = random.loc[own["slide_id"], curve].to_numpy()
            row[curve] = own[curve].mean()
            row[f"{curve}_minus_random"] = float((own[curve].to_numpy() - other).mean())
            several = len(own) > 1 and order != "random"
            row[f"{curve}_p"] = paired_p(own[curve].tolist(), other.tolist()) if several else float("nan")
        rows.append(row)
    return pd.DataFrame(rows)


def _orders(slide_id: str, influence: np.ndarray, reasons: SlideReasons) -> dict[str, list[np.ndarray]]:
    """Orders of patches by name; random ones are several, of a stream that the slide's name seeds."""
    maps = {"influence": influence, "evidence": reasons.evidence, "attention": reasons.attention}
    found = {name: [highest_first(values)] for name, values in maps.items() if values is not None}
    seed = int.from_bytes(hashlib.sha256(slide_id.encode()).digest()[:4], "big")
    stream = np.random.default_rng(seed)
    return {**found, "random": [stream.permutation(len(influence)) for _ in range(_RANDOM_DRAWS)]}


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _stamp(slide: Slide | None) -> Mapping[str, object] | None:
    """A slide as it is now; its gigabytes are not read for that."""
    if slide is None:
        return None
    stat = slide.path.stat()
    return {"path": slide.path.name, "size": stat.st_size, "mtime": stat.st_mtime_ns}


def _clear(folder: Path) -> None:
    """Make the folder of a slide, without what an earlier explanation or a killed one left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        files = read_json(folder / EXPLANATION)["files"]
    except (OSError, ValueError, KeyError, TypeError):
        files = []
    for name in [EXPLANATION, *files]:
        if Path(name).name == name:
            (folder / name).unlink(missing_ok=True)
    # .<stem>.<pid>.<random>.tmp.<suffix>, see ``files.atomic_path``.
    for stem in {path.name[1:].rsplit(".", 4)[0] for path in folder.glob(".*.tmp.*")}:
        remove_leftovers(folder, stem)


def _made_of(folder: Path) -> str | None:
    try:
        found = read_json(folder / EXPLANATION)
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and all((folder / name).is_file() for name in found.get("files", []))
    return str(found.get("made_of")) if whole else None
