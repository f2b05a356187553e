"""Patches as objects that QuPath opens: one detection a patch, its numbers as measurements."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from momkd.files import atomic_path

FloatArray = npt.NDArray[np.floating]


def write_geojson(
    target: Path,
    slide_id: str,
    coords: npt.NDArray[np.int64],
    patch_size: float,
    measurements: Mapping[str, FloatArray],
    classes: list[str] | None = None,
) -> Path:
    """Write one square a patch, corners (P, 2) and side in level-0 pixels; ``measurements`` by name (P,).

    ``classes`` (P,): what each patch speaks for, QuPath's classification. Equal contents give equal bytes: an object's
    id is made from its slide and place.
    """
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, (x, y) in enumerate(coords.tolist()):
            feature = {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"momkd:{slide_id}:{x}:{y}:{patch_size:g}:{number}")),
                "geometry": {"type": "Polygon", "coordinates": [_square(x, y, patch_size)]},
                "properties": {
                    "objectType": "detection",
                    "name": f"patch {number}",
                    **({"classification": {"name": classes[number]}} if classes else {}),
                    "measurements": {name: float(values[number]) for name, values in measurements.items()},
                },
            }
            file.write((",\n" if number else "\n") + json.dumps(feature, ensure_ascii=False, allow_nan=False))
        file.write("\n]}\n")
    return target


def _square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
