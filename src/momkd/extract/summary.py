"""summary.md: what an extraction folder holds, for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from momkd.extract.state import SlideState


def summary_text(identity: Mapping[str, Any], states: Sequence[SlideState]) -> str:
    """Return the page: counts, settings, what failed and why, then every slide."""
    done = [state for state in states if state.status == "done"]
    failed = [state for state in states if state.status == "failed"]
    waiting = [state for state in states if state.status == "pending"]
    counts = [f"{len(done)} of {len(states)} slides done", f"{sum(state.patches for state in done)} patches"]
    counts += [f"{len(failed)} failed"] if failed else []
    counts += [f"{len(waiting)} not yet done"] if waiting else []
    lines = ["# Extraction", "", f"{', '.join(counts)}.", "", "| setting | value |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in identity.items()]
    if failed:
        lines += ["", "## Failed", "", "| slide | why |", "|---|---|"]
        lines += [f"| {_cell(state.slide_id)} | {_cell(state.reason)} |" for state in failed]
    lines += ["", "## Slides", "", "| slide | status | patches | tissue, mm² | µm per pixel | from | file |"]
    lines += ["|---|---|---:|---:|---:|---|---|", *map(_row, states)]
    return "\n".join(lines) + "\n"


def _row(state: SlideState) -> str:
    tissue = "" if state.tissue_mm2 is None else f"{state.tissue_mm2:.2f}"
    mpp = "" if state.mpp is None else f"{state.mpp:g}"
    patches = str(state.patches) if state.status == "done" else ""
    cells = (state.slide_id, state.status, patches, tissue, mpp, state.mpp_from, state.file)
    return f"| {' | '.join(_cell(value) for value in cells)} |"


def _cell(value: object) -> str:
    return " ".join(str("" if value is None else value).replace("|", "\\|").split())
