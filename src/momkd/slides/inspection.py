"""``momkd inspect``: what a feature file is, and everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from momkd.errors import FeatureFileError, Problem
from momkd.slides.bag import Bag
from momkd.slides.mpp import SlideMpp
from momkd.slides.readers import bag_digest, read_bag
from momkd.slides.remote import FeatureFile, RemoteFile
from momkd.slides.sheet import problem_of
from momkd.slides.sources import source_files

# What a layout is called, and what its coordinates are in the file; in a bag they are top-left, level-0 px.
LAYOUTS = {
    "momkd": ("momkd", "top-left, level-0 px"),
    "momkd-published": ("TRIDENT with the graph of published MoMKD", "top-left, level-0 px"),
    "trident": ("TRIDENT", "top-left, level-0 px"),
    "trident-slide": ("TRIDENT, one vector a slide", "none"),
    "clam": ("CLAM", "top-left, level-0 px"),
    "stamp": ("STAMP", "top-left, µm"),
    "stamp-slide": ("STAMP, one vector a slide or patient", "none"),
    "lazyslide": ("LazySlide", "polygons, level-0 px"),
    "slideflow": ("slideflow", "centres, level-0 px"),
    "tensor": ("a bare tensor (CLAM, TRIDENT and others)", "top-left, level-0 px, in a file beside it"),
    "tensor-slide": ("a bare tensor, one vector a slide", "none"),
}


@dataclass(frozen=True)
class Inspection:
    """One feature file: ``facts`` in the order to show them (empty if it cannot be read), ``problems``."""

    path: FeatureFile
    facts: dict[str, str]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether momkd can use it as it is."""
        return not any(problem.severity == "error" for problem in self.problems)


def inspect_file(path: FeatureFile, *, slide_mpp: SlideMpp = None, table: str | None = None) -> Inspection:
    """Read a feature file whole and say what it is; what is wrong with it is returned, not raised."""
    try:
        bag = read_bag(path, slide_mpp=slide_mpp, table=table)
    except FeatureFileError as error:
        return Inspection(path, {}, (problem_of(error),))
    return Inspection(path, _facts(path, bag), tuple(_notes(bag)))


def _facts(path: FeatureFile, bag: Bag) -> dict[str, str]:
    name, unit = LAYOUTS.get(bag.layout, (bag.layout, "unknown"))
    features = bag.features.astype(np.float32)
    size = path.size if isinstance(path, RemoteFile) else sum(file.stat().st_size for file in source_files(path))
    found = {
        "layout": name,
        "slide id": bag.slide_id,
        "patches": f"{bag.n_patches}",
        "features": f"{bag.width} wide, {bag.features.dtype}, from {features.min():.4g} to {features.max():.4g}",
        "coordinates": "none" if bag.coords is None else f"{_extent(bag.coords)}; in the file: {unit}",
        "patch size (level-0 px)": _known(bag.patch_size_level0),
        "µm per level-0 px": _known(bag.mpp),
        "encoder": bag.encoder or "not stated",
        "graphs": ", ".join(f"k = {k}: {edges.shape[1]} edges" for k, edges in bag.edges.items()) or "none",
        "size": f"{size / 1e6:.2f} MB",
        "contents (SHA-256)": bag_digest(bag),
    }
    if bag.patch_size_level0 is not None and bag.mpp is not None:
        found["patch size (µm)"] = f"{bag.patch_size_level0 * bag.mpp:.4g}"
    return found


def _extent(coords: np.ndarray) -> str:
    (left, top), (right, bottom) = coords.min(axis=0), coords.max(axis=0)
    return f"x {left} – {right}, y {top} – {bottom} (top-left, level-0 px)"


def _known(value: float | None) -> str:
    return "not stated" if value is None else f"{value:g}"


def _notes(bag: Bag) -> list[Problem]:
    """What can be used as it is, but not for everything."""
    found: list[tuple[str, str]] = []
    if bag.coords is None and bag.n_patches > 1 and not bag.edges:
        found.append(("no coordinates", "without them and without a graph of its own it needs graph.k: 0"))
    if bag.coords is not None:
        twice = len(bag.coords) - len(np.unique(bag.coords, axis=0))
        if twice:
            found.append((f"{twice} patches at the place of another one", "find out whether patches were read twice"))
    constant = int((np.ptp(bag.features.astype(np.float32), axis=0) == 0).sum()) if bag.n_patches > 1 else 0
    if constant:
        found.append((f"{constant} of {bag.width} features have one value in all patches", ""))
    if bag.encoder is None:
        found.append(("no encoder's name", "predict cannot tell whether a student was trained on such features"))
    return [Problem(bag.slide_id, what, mend=mend, severity="note") for what, mend in found]
