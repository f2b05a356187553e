"""One slide explained: a folder with maps, patches to look at, a table and QuPath objects.

FOLDER/<slide_id>/  explanation.json   what is predicted, by whom, from what; written last
                    patches.csv        every patch: place, attention, evidence, influence, nearest prototype
                    patches.geojson    the same for QuPath (needs coordinates and patch size)
                    influence-<class>.png, attention.png, evidence.png       maps over the slide
                    influence-<class>.ome.tif                                the first of them as a pyramid
                    top.png, prototypes-<memory>.png                         patches (need the slide's pixels)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from momkd.explain.canvas import Canvas, blank, paint
from momkd.explain.codes import code_names, memory_names
from momkd.explain.geojson import write_geojson
from momkd.explain.heatmap import OPACITY, Look, blended, draw_heatmap, scale_of
from momkd.explain.pixels import SlidePixels
from momkd.explain.pyramid import write_pyramid
from momkd.explain.top import PIXELS, TopRow, draw_rows, prototype_rows, top
from momkd.files import atomic_path
from momkd.slides.bag import Bag
from momkd.student.predictor import StudentPredictor
from momkd.student.reasons import SlideReasons

FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class PatchMap:
    """One number a patch: ``name`` of files, ``values`` (P,), how it looks, and what it means in words.

    ``most`` and ``least`` name the patches with the highest and the lowest; the lowest attention says nothing.
    """

    name: str
    values: FloatArray
    look: Look
    meaning: str
    most: str
    least: str = ""


def maps_of(reasons: SlideReasons, classes: Sequence[str]) -> list[PatchMap]:
    """The maps of a slide, the most telling first. Numbers are multiplied by P, so that slides can be compared."""
    found, files = [], _file_names(reasons.influence)
    for name, values in reasons.influence.items():
        unit = f"log-odds of {name}" if name in classes else name
        meaning = f"influence on the {unit} (times the number of patches)"
        most, least = (f"most for {name}", f"most against {name}") if classes else (f"raise {name}", f"lower {name}")
        found.append(PatchMap(f"influence-{files[name]}", values * len(values), "signed", meaning, most, least))
    if reasons.evidence is not None:
        words = f"evidence: likeness to the memory of {classes[-1]} minus the other" if classes else "evidence"
        found.append(PatchMap("evidence", reasons.evidence, "signed", words, "highest evidence", "lowest evidence"))
    if reasons.attention is not None:
        values = reasons.attention * len(reasons.attention)
        words = "attention (times the number of patches; 1 is average)"
        found.append(PatchMap("attention", values, "positive", words, "most attention"))
    return found


def predicted_words(reasons: SlideReasons, student: StudentPredictor, threshold: float) -> str:
    """What is predicted, for a title."""
    values, card = reasons.prediction.values, student.card
    if not card.classes:
        return f"{card.label}: {values[0]:.3g}"
    best = int(np.argmax(values))
    if card.task.binary:
        best = int(values[1] >= threshold)
        return f"{card.label}: {card.classes[best]} · P({card.classes[1]}) {values[1]:.3f}, threshold {threshold:.3f}"
    return f"{card.label}: {card.classes[best]} · P {values[best]:.3f}"


def write_slide(
    folder: Path,
    bag: Bag,
    reasons: SlideReasons,
    student: StudentPredictor,
    *,
    threshold: float,
    slide: AbstractContextManager[SlidePixels] | None,
    patch_size: float | None,
    top_count: int,
) -> tuple[list[str], list[str]]:
    """Write everything but explanation.json; return the names of the files, and what could not be drawn and why.

    ``slide`` is entered where there is something to draw on it.
    """
    classes = student.card.classes
    memories = memory_names(student.card)
    maps = maps_of(reasons, classes)
    files, notes = [], []
    table = patch_table(bag, maps, reasons.prototypes, memories, patch_size)
    with atomic_path(folder / "patches.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    files.append("patches.csv")
    if bag.coords is None or patch_size is None:
        lacks = "no coordinates" if bag.coords is None else "no patch size (give --patch-size-level0)"
        return files, [f"{bag.source}: {lacks}, so there is no map to draw and nothing for QuPath"]
    speaks = _speaks_for(maps[0], classes)
    measured = {one.name: one.values for one in maps}
    write_geojson(folder / "patches.geojson", bag.slide_id, bag.coords, patch_size, measured, speaks)
    files.append("patches.geojson")
    with ExitStack() as stack:
        pixels = None if slide is None else stack.enter_context(slide)
        canvas = pixels.canvas if pixels is not None else blank(bag.coords, patch_size, bag.mpp)
        title = f"{bag.slide_id}\n{predicted_words(reasons, student, threshold)}"
        # On white paper colours are those of the colour bar; over a slide the tissue shows through.
        opacity = 1.0 if pixels is None else OPACITY
        files += _draw_maps(folder, maps, bag.coords, patch_size, canvas, title, opacity)
        if pixels is None:
            notes.append(f"{bag.slide_id}: without the slide (--slides) its patches cannot be shown, only their places")
        else:
            files += _draw_patches(folder, maps, reasons, memories, bag, patch_size, pixels, title, top_count)
    return files, notes


def patch_table(
    bag: Bag,
    maps: Sequence[PatchMap],
    prototypes: Mapping[str, FloatArray],
    memories: Sequence[str],
    patch_size: float | None,
) -> pd.DataFrame:
    """One row a patch: number, place in level-0 pixels, the maps, and the nearest code of each memory."""
    columns: dict[str, object] = {"patch": np.arange(bag.n_patches)}
    if bag.coords is not None:
        columns |= {"x": bag.coords[:, 0], "y": bag.coords[:, 1]}
        if patch_size is not None:
            columns["side"] = np.full(bag.n_patches, patch_size)
    columns |= {one.name: one.values for one in maps}
    for name, cosines in prototypes.items():
        flat = cosines.reshape(len(cosines), -1)
        columns[f"prototype-{name}"] = np.array(code_names(memories, cosines.shape[2]))[flat.argmax(1)]
        columns[f"cosine-{name}"] = flat.max(1)
    return pd.DataFrame(columns)


def _speaks_for(one: PatchMap, classes: Sequence[str]) -> list[str] | None:
    """What each patch speaks for, by the sign of the first influence; None where there is none, or no two classes."""
    if len(classes) != 2 or one.look != "signed":
        return None
    return [classes[int(value > 0)] for value in one.values]


def _draw_maps(
    folder: Path,
    maps: Sequence[PatchMap],
    coords: npt.NDArray[np.int64],
    patch_size: float,
    canvas: Canvas,
    title: str,
    opacity: float,
) -> list[str]:
    files = []
    for number, one in enumerate(maps):
        painted, scale = paint(one.values, coords, patch_size, canvas), scale_of(one.values, one.look)
        over = blended(canvas, painted, scale, opacity)
        draw_heatmap(canvas, over, scale, folder / f"{one.name}.png", title=title, meaning=one.meaning)
        files.append(f"{one.name}.png")
        if number == 0:
            write_pyramid(over, canvas, folder / f"{one.name}.ome.tif", name=one.meaning)
            files.append(f"{one.name}.ome.tif")
    return files


def _draw_patches(
    folder: Path,
    maps: Sequence[PatchMap],
    reasons: SlideReasons,
    memories: Sequence[str],
    bag: Bag,
    patch_size: float,
    pixels: SlidePixels,
    title: str,
    count: int,
) -> list[str]:
    coords = np.asarray(bag.coords)

    def look(patch: int) -> npt.NDArray[np.uint8]:
        x, y = coords[patch].tolist()
        return pixels.patch(x, y, patch_size, PIXELS)

    rows: list[TopRow] = []
    for one in maps:
        rows.append(top(one.most, one.values, count))
        if one.least:
            rows.append(top(one.least, one.values, count, lowest=True))
    draw_rows(rows, look, folder / "top.png", title=title)
    files = ["top.png"]
    names = _file_names(reasons.prototypes)
    for name, cosines in reasons.prototypes.items():
        target = folder / f"prototypes-{names[name]}.png"
        words = f"{bag.slide_id}: the patches most like each prototype ({name}), with their cosine"
        draw_rows(prototype_rows(cosines, memories, count), look, target, title=words)
        files.append(target.name)
    return files


def _file_names(names: Iterable[str]) -> dict[str, str]:
    """Classes or tables as parts of file names, none like another: "HER2-" and "HER2+" become HER2_-1 and HER2_-2."""
    plain = {name: "".join(c if c.isalnum() or c in "._" else "_" for c in name) for name in names}
    count = Counter(word.casefold() for word in plain.values())
    return {
        name: word if count[word.casefold()] == 1 else f"{word}-{number}"
        for number, (name, word) in enumerate(plain.items(), 1)
    }
