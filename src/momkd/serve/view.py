"""What the page draws: every map of a slide as one byte a patch, the colours, and the patches worth looking at."""

from __future__ import annotations

import base64
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt

from momkd.explain.codes import code_names, memory_names
from momkd.explain.heatmap import COLOURS, Scale, scale_of
from momkd.explain.pixels import SlidePixels
from momkd.explain.slide import maps_of
from momkd.explain.top import TopRow, prototype_rows, top
from momkd.serve.tiles import TILE, top_level
from momkd.slides.bag import Bag
from momkd.student.predictor import StudentCard
from momkd.student.reasons import SlideReasons

FloatArray = npt.NDArray[np.floating]
_STEPS = 255


def view_of(
    bag: Bag, reasons: SlideReasons, card: StudentCard, patch_size: float, pixels: SlidePixels | None, count: int
) -> dict[str, Any]:
    """The JSON of a slide's map; ``count`` patches in each row worth looking at, ``pixels`` None without the slide.

    Patches: corners as base64 of little-endian int32, sides in level-0 pixels. A layer's value is low + byte · (high −
    low) / 255, clipped; its colour is number byte of ``colours[look]``, base64 of 256 RGB triples.
    """
    coords = np.asarray(bag.coords)
    low, high = coords.min(0), coords.max(0) + patch_size
    layers, rows = [], []
    for one in maps_of(reasons, card.classes):
        layers.append(_layer(one.name, "maps", one.meaning, one.values, scale_of(one.values, one.look)))
        rows.append(_row(one.name, top(one.most, one.values, count)))
        if one.least:
            rows.append(_row(one.name, top(one.least, one.values, count, lowest=True)))
    for memory, cosines in reasons.prototypes.items():
        flat = cosines.reshape(len(cosines), -1)
        scale = Scale("positive", float(np.percentile(flat, 1)), float(max(np.percentile(flat, 99), flat.min() + 1e-6)))
        names = memory_names(card)
        for number, code in enumerate(code_names(names, cosines.shape[2])):
            name = f"prototype-{memory}-{number}"
            layers.append(
                _layer(name, f"prototypes: {memory}", f"{code}: cosine with this prototype", flat[:, number], scale)
            )
        found = prototype_rows(cosines, names, count)
        rows += [_row(f"prototype-{memory}-{number}", row) for number, row in enumerate(found)]
    return {
        "slide": None
        if pixels is None
        else {
            "width": pixels.width,
            "height": pixels.height,
            "tile": TILE,
            "levels": top_level(pixels.width, pixels.height),
        },
        "extent": {
            "x": float(low[0]),
            "y": float(low[1]),
            "width": float(high[0] - low[0]),
            "height": float(high[1] - low[1]),
        },
        "mpp": bag.mpp if pixels is None else pixels.canvas.mpp,
        "patch_size": patch_size,
        "patches": {"count": bag.n_patches, "x": _bytes(coords[:, 0], "<i4"), "y": _bytes(coords[:, 1], "<i4")},
        "classes": list(card.classes),
        "colours": {look: _colours(name) for look, name in COLOURS.items()},
        "layers": layers,
        "rows": rows,
    }


def _layer(name: str, group: str, meaning: str, values: FloatArray, scale: Scale) -> dict[str, Any]:
    share = (np.asarray(values, np.float64) - scale.low) / (scale.high - scale.low)
    return {
        "name": name,
        "group": group,
        "meaning": meaning,
        "look": scale.look,
        "low": scale.low,
        "high": scale.high,
        "values": _bytes(np.rint(share.clip(0, 1) * _STEPS), "u1"),
    }


def _row(layer: str, row: TopRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "layer": layer,
        "patches": list(row.patches),
        "values": [float(f"{v:.3g}") for v in row.values],
    }


def _colours(name: str) -> str:
    table = matplotlib.colormaps[name](np.arange(_STEPS + 1) / _STEPS, bytes=True)
    return _bytes(np.asarray(table)[:, :3].reshape(-1), "u1")


def _bytes(values: npt.NDArray[Any], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode("ascii")
