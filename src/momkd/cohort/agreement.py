"""Do the feature files of a cohort belong together, and can each have the graph that the experiment asks for?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from statistics import median

from momkd.errors import Problem, summarise
from momkd.experiment import Experiment
from momkd.slides.bag import BagInfo

# Scanners differ by a percent or two in µm per pixel; a difference beyond this is another magnification or patch size.
_TOLERANCE = 0.05

Headers = Mapping[str, BagInfo]


def disagreements(headers: Headers, experiment: Experiment) -> list[Problem]:
    """Return what makes slides unfit to be compared, naming the minority.

    Errors: another width or another encoder than most, no way to make the graph. Notes: another patch size in µm
    (the magnification), things that some files state and others do not, graphs of the files that replace graph.k.
    """
    folder = str(experiment.features.dir)
    problems = _minority(headers, folder, "feature width", lambda info: info.width)
    problems += _minority(headers, folder, "encoder", lambda info: info.encoder)
    problems += _magnification(headers, folder)
    for name, of in (("encoder", _encoder), ("µm per level-0 px", _mpp), ("patch size", _patch_size)):
        silent = sorted(slide for slide, info in headers.items() if of(info) is None)
        if silent and len(silent) < len(headers):
            found = f"{len(silent)} of {len(headers)} slides do not state their {name}: {summarise(silent)}"
            problems.append(Problem(folder, found, severity="note"))
    return problems + (_graphs(headers, folder, experiment.graph.k) if experiment.graph.k > 0 else [])


def _encoder(info: BagInfo) -> str | None:
    return info.encoder


def _mpp(info: BagInfo) -> float | None:
    return info.mpp


def _patch_size(info: BagInfo) -> float | None:
    return info.patch_size_level0


def _minority(headers: Headers, folder: str, name: str, of: Callable[[BagInfo], Hashable]) -> list[Problem]:
    """Find slides that differ from most others; a value that a file does not state is no difference."""
    values = {slide: of(info) for slide, info in headers.items() if of(info) is not None}
    counts = Counter(values.values())
    if len(counts) < 2:
        return []
    usual = min(counts, key=lambda value: (-counts[value], str(value)))
    parts = []
    for value in sorted(set(counts) - {usual}, key=str):
        slides = sorted(slide for slide, own in values.items() if own == value)
        parts.append(f"{value} in {_slides(slides)} ({summarise(slides)})")
    found = f"{name} is {usual} in {counts[usual]} slides, but {'; '.join(parts)}"
    mend = "extract all slides with one encoder, or list the others in cohort.exclude"
    return [Problem(folder, found, f"one {name}", mend)]


def _magnification(headers: Headers, folder: str) -> list[Problem]:
    """Compare patch sizes in µm where the scale is known, and in level-0 pixels where it is not."""
    problems = []
    physical = {s: i.patch_size_level0 * i.mpp for s, i in headers.items() if i.patch_size_level0 and i.mpp}
    pixels = {s: i.patch_size_level0 for s, i in headers.items() if i.patch_size_level0 and not i.mpp}
    scales = {s: i.mpp for s, i in headers.items() if i.mpp and not i.patch_size_level0}
    for values, name, unit in (
        (physical, "patch size", "µm"),
        (pixels, "patch size (scale unknown)", "level-0 px"),
        (scales, "scale", "µm per level-0 px"),
    ):
        if not values:
            continue
        usual = median(values.values())
        others = sorted(slide for slide, value in values.items() if abs(value / usual - 1.0) > _TOLERANCE)
        if others:
            own = [f"{slide} {values[slide]:.4g}" for slide in others]
            found = f"{name} is {usual:.4g} {unit} as a rule, but another in {_slides(others)}: {summarise(own)}"
            mend = "features of another magnification are seldom comparable: extract them alike, or exclude the slides"
            problems.append(Problem(folder, found, f"one {name} in {unit}", mend, severity="note"))
    return problems


def _graphs(headers: Headers, folder: str, k: int) -> list[Problem]:
    """Say which slides can have no graph, and which bring one of their own."""
    problems = []
    several = {s: i for s, i in headers.items() if i.n_patches > 1}
    lost = sorted(s for s, info in several.items() if not info.has_coords and not info.edge_ks)
    if lost:
        found = f"{_slides(lost)} with neither coordinates nor edges: {summarise(lost)}"
        mend = "set graph.k: 0 (each patch sees only itself), or extract features with coordinates"
        problems.append(Problem(folder, found, f"coordinates for graph.k: {k}", mend))
    unclear = sorted(s for s, info in several.items() if len(info.edge_ks) > 1 and k not in info.edge_ks)
    if unclear:
        ks = sorted({own for slide in unclear for own in headers[slide].edge_ks})
        found = f"{_slides(unclear)} with several graphs, none of them for graph.k {k}: {summarise(unclear)}"
        mend = f"set graph.k to one of {', '.join(map(str, ks))}"
        problems.append(Problem(folder, found, f"edge_index_k{k}, or one graph only", mend))
    own = Counter(info.edge_ks[0] for info in several.values() if len(info.edge_ks) == 1 and k not in info.edge_ks)
    for own_k, count in sorted(own.items()):
        found = f"{count} slides bring edge_index_k{own_k}, which is used instead of graph.k {k}"
        problems.append(Problem(folder, found, severity="note"))
    if not several:
        found = f"every slide is a single vector: graph.k {k} has no effect"
        problems.append(Problem(folder, found, severity="note"))
    return problems


def _slides(names: list[str]) -> str:
    return "1 slide" if len(names) == 1 else f"{len(names)} slides"
