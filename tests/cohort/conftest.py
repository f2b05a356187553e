"""A small cohort on disk that a test can damage."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from momkd.experiment import Experiment, build_experiment
from momkd.slides.bag import Bag
from momkd.slides.writer import write_bag

Rows = Sequence[Sequence[str]]


@dataclass
class Lab:
    """A folder with a cohort table, features and RNA, and the experiment that points to them."""

    folder: Path
    header: list[str] = field(default_factory=lambda: ["patient_id", "slide_id", "HER2"])

    def table(self, rows: Rows, *, name: str = "cohort.csv", separator: str = ",") -> Path:
        lines = [separator.join(row) for row in [self.header, *rows]]
        (self.folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return self.folder / name

    def slide(self, slide_id: str, *, n: int = 5, width: int = 4, seed: int | None = None, **changes: Any) -> Path:
        rng = np.random.default_rng(zlib.crc32(slide_id.encode()) if seed is None else seed)
        fields: dict[str, Any] = {
            "features": rng.normal(size=(n, width)).astype(np.float32),
            "coords": np.stack(np.divmod(np.arange(n), 3), axis=1) * 256,
            "patch_size_level0": 256.0,
            "mpp": 0.5,
            "encoder": "toy",
            "edges": {},
        }
        target = self.folder / "features" / f"{slide_id}.h5"
        write_bag(Bag(slide_id=slide_id, **{**fields, **changes}), target, producer="tests")
        return target

    def slides(self, rows: Rows) -> None:
        for row in rows:
            self.slide(row[1])

    def rna(self, patients: Sequence[str]) -> None:
        rng = np.random.default_rng(0)
        values = rng.normal(size=(len(patients), 3)).round(3)
        index = pd.Index(list(patients), name="patient_id")
        pd.DataFrame(values, index=index, columns=["A", "B", "C"]).to_csv(self.folder / "rna.csv")

    def experiment(self, **sections: dict[str, Any]) -> Experiment:
        raw: dict[str, Any] = {
            "cohort": {"table": "cohort.csv"},
            "features": {"dir": "features"},
            "task": {"label": "HER2", "classes": ["negative", "positive"]},
        }
        for name, section in sections.items():
            raw[name] = {**raw.get(name, {}), **section}
        return build_experiment(raw, base=self.folder)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "features").mkdir()
    return Lab(tmp_path)
