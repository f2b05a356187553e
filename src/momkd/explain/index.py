"""The index of explained slides: one HTML file beside their folders that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from jinja2 import Template


def write_index(told: Sequence[Mapping[str, Any]], failed: Mapping[str, str], faithfulness: pd.DataFrame | None) -> str:
    """The page, from the contents of each slide's explanation.json, and of those that failed."""
    measured = None
    if faithfulness is not None:
        measured = {
            "heads": ["order", "slides", "deletion", "− random", "p", "insertion", "− random", "p"],
            "rows": [[_cell(value) for value in row] for row in faithfulness.itertuples(index=False)],
        }
    slides = [{**one, "words": _words(one), "shown": _shown(one)} for one in told]
    return _template().render(slides=slides, failed=failed, measured=measured, use=told[0]["intended_use"]) + "\n"


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


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("momkd.explain", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["address"] = _address
    return environment.get_template("index.html.j2")


def _address(text: str) -> str:
    from urllib.parse import quote

    return quote(text)
