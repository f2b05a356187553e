"""A map over its slide as a pyramidal OME-TIFF, which viewers of slides open at its true size."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from momkd.explain.canvas import Canvas
from momkd.files import atomic_path

_TILE, _SMALLEST = 256, 512


def write_pyramid(image: npt.NDArray[np.uint8], canvas: Canvas, target: Path, *, name: str) -> Path:
    """Write an RGB image (h, w, 3) over a canvas, with levels of half the size below it and its µm per pixel.

    Its position on the slide, in µm from the corner of level 0, stands in the metadata.
    """
    import tifffile

    levels = [image]
    while max(levels[-1].shape[:2]) > _SMALLEST:
        levels.append(_halved(levels[-1]))
    # Made of the contents, not of the time: equal maps are equal files.
    uid = uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(image.tobytes()).hexdigest())
    metadata: dict[str, object] = {"axes": "YXS", "Name": name, "UUID": f"urn:uuid:{uid}"}
    if canvas.mpp is not None:
        size = canvas.scale * canvas.mpp
        place = {"PositionX": canvas.x * canvas.mpp, "PositionY": canvas.y * canvas.mpp}
        units = {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
        plane = {**place, "PositionXUnit": "µm", "PositionYUnit": "µm"}
        metadata |= {"PhysicalSizeX": size, "PhysicalSizeY": size, **units, "Plane": plane}
    options: dict[str, Any] = {"photometric": "rgb", "tile": (_TILE, _TILE), "compression": "zlib"}
    with atomic_path(target) as temporary, tifffile.TiffWriter(temporary, ome=True, bigtiff=True) as writer:
        writer.write(levels[0], subifds=len(levels) - 1, metadata=metadata, **options)
        for level in levels[1:]:
            writer.write(level, subfiletype=1, metadata=None, **options)
    return target


def _halved(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Means of 2 × 2 pixels; a last odd row or column stands for itself."""
    rows, columns = (side + side % 2 for side in image.shape[:2])
    even = np.pad(image, ((0, rows - image.shape[0]), (0, columns - image.shape[1]), (0, 0)), mode="edge")
    means = even.reshape(rows // 2, 2, columns // 2, 2, 3).mean(axis=(1, 3))
    return np.asarray(np.round(means), dtype=np.uint8)
