"""µm per level-0 pixel where feature files do not say it: one number for all slides, or a table."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from momkd.errors import FeatureFileError, Problem, raise_problems
from momkd.slides.sheet import defect

SlideMpp = float | Mapping[str, float] | None


def mpp_of(slide_mpp: SlideMpp, slide_id: str) -> float | None:
    """The number of one slide; None where none was given. Raises FeatureFileError for one that is no size."""
    value = slide_mpp.get(slide_id) if isinstance(slide_mpp, Mapping) else slide_mpp
    if value is not None and not 0 < value < math.inf:
        raise defect("features.slide_mpp", f"{value} for slide {slide_id}", "µm per level-0 pixel, above 0")
    return value


def read_slide_mpp(value: float | str | Path | None) -> SlideMpp:
    """What an option or setting means: a number, or a CSV with the columns slide_id and mpp (empty: not known).

    Raises FeatureFileError listing every row of a table that is not usable.
    """
    if value is None or isinstance(value, int | float):
        return value
    try:
        return float(str(value))
    except ValueError:
        return _read_table(Path(value))


def _read_table(path: Path) -> dict[str, float]:
    if not path.is_file():
        raise defect(path, "no such file", "a number, or a CSV with columns slide_id and mpp")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if missing := [name for name in ("slide_id", "mpp") if name not in (rows.fieldnames or ())]:
            found = f"columns {', '.join(rows.fieldnames or ()) or 'none'}"
            raise defect(path, found, f"columns slide_id and mpp; missing: {', '.join(missing)}")
        known: dict[str, float] = {}
        problems = []
        for row in rows:
            slide, text = (row["slide_id"] or "").strip(), (row["mpp"] or "").strip()
            if not text:
                continue
            number = _number(text)
            if not slide or number is None:
                problems.append(f"row {rows.line_num}: slide {slide!r}, mpp {text!r}; expected a number above 0")
            elif known.setdefault(slide, number) != number:
                problems.append(f"row {rows.line_num}: slide {slide} has mpp {known[slide]:g} and {number:g}")
    raise_problems([Problem(str(path), found) for found in problems], FeatureFileError)
    return known


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None
