"""What an extraction is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from momkd.errors import ExtractError, Problem, raise_problems

# No microscope scans outside this range; a "µm per pixel" of 40 is a magnification, one of 353 a printer's 72 dpi.
MPP_RANGE = (0.02, 20.0)
DEFAULT_ENCODER = "efficientnet-lite0"
TISSUE_METHODS = ("otsu", "entropy", "none")
PRECISIONS = ("auto", "float32", "bf16")


@dataclass(frozen=True)
class ExtractSettings:
    """How slides become features.

    ``mpp``: µm per pixel at which patches are seen; ``patch_size`` and ``overlap`` in pixels at that mpp. ``tissue``:
    LazySlide's method, or none for a grid over the whole image; ``min_tissue``: the share of a patch that must be
    tissue. ``slide_mpp``: µm per level-0 pixel of slides whose metadata have none. ``precision`` auto is bf16 on CUDA
    and float32 elsewhere; ``dtype`` is how features are stored; ``graph_k`` also stores the graph. ``workers`` threads
    read patches ahead (default: from the cores). Raises ExtractError listing everything that is wrong.
    """

    encoder: str = DEFAULT_ENCODER
    checkpoint: Path | None = None
    mpp: float = 0.5
    patch_size: int = 256
    overlap: int = 0
    tissue: str = "otsu"
    min_tissue: float = 0.7
    slide_mpp: float | None = None
    reader: str | None = None
    dtype: str = "float16"
    graph_k: int | None = None
    precision: str = "auto"
    device: str = "auto"
    batch_size: int = 64
    workers: int | None = None

    def __post_init__(self) -> None:
        found = [*_wrong_lengths(self), *_wrong_words(self), *_wrong_numbers(self)]
        raise_problems(found, ExtractError)

    def identity(self) -> dict[str, Any]:
        """Return what decides the numbers: all but the slide's own mpp, the weights and how fast it goes."""
        names = ("encoder", "mpp", "patch_size", "overlap", "tissue", "min_tissue", "reader", "dtype", "graph_k")
        return {name: getattr(self, name) for name in names}


def plausible_mpp(value: float) -> bool:
    """Whether a number can be the µm per pixel of a slide (NaN and infinity cannot)."""
    return MPP_RANGE[0] <= value <= MPP_RANGE[1]


def mpp_problem(subject: str, value: float) -> Problem:
    """Return the problem of a µm per pixel that cannot be one."""
    low, high = MPP_RANGE
    mend = "40× slides have about 0.25, 20× slides about 0.5"
    return Problem(subject, f"{value:g}", f"µm per pixel between {low:g} and {high:g}", mend)


def _wrong_lengths(settings: ExtractSettings) -> list[Problem]:
    named = (("--mpp", settings.mpp), ("--slide-mpp", settings.slide_mpp))
    return [mpp_problem(name, value) for name, value in named if value is not None and not plausible_mpp(value)]


def _wrong_words(settings: ExtractSettings) -> list[Problem]:
    allowed = (
        ("--tissue", settings.tissue, TISSUE_METHODS),
        ("--precision", settings.precision, PRECISIONS),
        ("--dtype", settings.dtype, ("float16", "float32")),
    )
    return [
        Problem(name, repr(value), f"one of {', '.join(words)}") for name, value, words in allowed if value not in words
    ]


def _wrong_numbers(settings: ExtractSettings) -> list[Problem]:
    bounds = (
        ("--patch-size", settings.patch_size, 16, 8192),
        ("--overlap", settings.overlap, 0, settings.patch_size - 1),
        ("--min-tissue", settings.min_tissue, 0, 1),
        ("--k", settings.graph_k, 1, None),
        ("--batch-size", settings.batch_size, 1, None),
        ("--workers", settings.workers, 1, None),
    )
    problems = []
    for name, value, low, high in bounds:
        if value is not None and not (low <= value and (high is None or value <= high)):
            expected = f"{low} or more" if high is None else f"between {low} and {high}"
            problems.append(Problem(name, f"{value}", expected))
    return problems
