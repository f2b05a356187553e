"""Pages: the index of explained slides, and a fold's prototypes. One HTML file each, beside its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from momkd.templates import environment

# Genes are named at this false discovery rate.
_FDR = 0.05


def write_index(told: Sequence[Mapping[str, Any]], failed: Mapping[str, str], faithfulness: pd.DataFrame | None) -> str:
    """The page, from the contents of each slide's explanation.json, and of those that failed."""
    measured = None
    if faithfulness is not None:
        measured = {
            "heads": ["order", "slides", "deletion", "− random", "p", "insertion", "− random", "p"],
            "rows": [[_cell(value) for value in row] for row in faithfulness.itertuples(index=False)],
        }
    slides = [{**one, "words": _words(one), "shown": _shown(one)} for one in told]
    template = environment("momkd.explain").get_template("index.html.j2")
    return template.render(slides=slides, failed=failed, measured=measured, use=told[0]["intended_use"]) + "\n"


def write_prototypes(
    run: Path, fold: str, memories: Sequence[str], usage: pd.DataFrame, genes: pd.DataFrame, *, most: int = 8
) -> str:
    """The page of a fold's prototypes: pictures, and the genes that go most with each code, q below 5 %."""
    shown = []
    for memory in memories:
        for table, own in genes[genes["memory"] == memory].groupby("table", sort=False):
            rows = []
            for code, of_code in own.groupby("code", sort=False):
                found = of_code[of_code["q"] < _FDR]
                up = found[found["r"] > 0].nlargest(most, "r")
                down = found[found["r"] < 0].nsmallest(most, "r")
                used = usage[(usage["memory"] == memory) & (usage["by"] == "slide") & (usage["code"] == code)]
                rows.append([code, str(len(used)), _genes(up), _genes(down), str(len(found))])
            shown.append({"memory": memory, "table": table, "rows": rows})
    template = environment("momkd.explain").get_template("prototypes.html.j2")
    return template.render(run=str(run), fold=fold, memories=memories, tables=shown) + "\n"


def _genes(rows: pd.DataFrame) -> str:
    return ", ".join(f"{row.gene} {row.r:+.2f}" for row in rows.itertuples())


def _words(one: Mapping[str, Any]) -> str:
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in one["prediction"].items())
    threshold = "" if one["threshold"] is None else f" (threshold {one['threshold']:.3f})"
    return f"{one['label']}: {numbers}{threshold}"


def _shown(one: Mapping[str, Any]) -> list[str]:
    return [name for name in one["files"] if name.endswith(".png")]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.3g}"
    return str(value)
