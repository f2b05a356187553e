"""Experiment files with a section sweep, for tests of grids and of searches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

BASE = """
cohort: {table: cohort.csv}
features: {dir: features}
omics: {table: rna.csv}
task: {label: HER2, classes: [negative, positive]}
"""


def write(folder: Path, section: Any = None) -> Path:
    """Write E.yaml with a section sweep, or without."""
    file = folder / "E.yaml"
    text = "" if section is None else yaml.safe_dump({"sweep": section}, sort_keys=False)
    file.write_text(BASE + text, encoding="utf-8")
    return file
