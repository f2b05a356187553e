"""`.pt` feature files: one bare tensor, read without ever unpickling an object."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from momkd.slides.layouts import patch_size_beside
from momkd.slides.sheet import Sheet, Stored, defect
from momkd.slides.slideflow import describe_slideflow
from momkd.slides.sources import coords_beside, slideflow_index

if TYPE_CHECKING:
    import torch

_EXPECTED = "one (patches, features) tensor saved with torch.save"


def describe_pt(path: Path, slide_mpp: float | None) -> Sheet:
    """Describe a `.pt` file: CLAM's pt_files, TRIDENT's tensors, a slide vector, a slideflow bag.

    Coordinates are those of slideflow's index, or of a file beside it such as ``<slide>_coords.npy``: top-left in
    level-0 pixels, in the order of the tensor.

    Raises FeatureFileError where the file needs pickle, is damaged, or holds something else than one tensor.
    """
    if not path.is_file():
        raise defect(path, "no such file", "a feature file")
    features = _stored(path, "tensor")
    index = slideflow_index(path)
    if index is not None:
        return describe_slideflow(path, features, index, slide_mpp)
    is_vector = len(features.shape) == 1
    coords = None if is_vector else coords_beside(path)
    return Sheet(
        path,
        "tensor-slide" if is_vector else "tensor",
        features,
        None if coords is None else _coords(coords),
        patch_size_level0=None if is_vector else patch_size_beside(path),
        mpp=slide_mpp,
        is_vector=is_vector,
    )


def _stored(path: Path, name: str) -> Stored:
    tensor = _load(path)
    dtype = np.dtype(np.float32) if str(tensor.dtype) == "torch.bfloat16" else _numpy_dtype(path, tensor)
    return Stored(name, tuple(tensor.shape), dtype, lambda: _values(tensor))


def _coords(path: Path) -> Stored:
    if path.suffix == ".pt":
        return _stored(path, path.name)
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise defect(path, f"cannot be read ({error})", "an array (patches, 2) saved with numpy.save") from error
    if not isinstance(values, np.ndarray):
        raise defect(path, "an archive of arrays", "one array (patches, 2) saved with numpy.save")
    return Stored(path.name, values.shape, values.dtype, lambda: values)


def _load(path: Path) -> torch.Tensor:
    # Imported here: torch takes seconds to import, and most feature files are HDF5.
    import torch

    try:
        # torch warns of foreign pickles before it refuses them; the error below says all of it.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            # Mapped, not read: the header alone is wanted when a cohort is inspected.
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        mend = "save the tensor alone with torch.save; momkd unpickles no objects, because that can run code"
        raise defect(path, "not a plain tensor (it is damaged, or needs pickle)", _EXPECTED, mend) from error
    except Exception as error:
        found = f"cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        raise defect(path, found, _EXPECTED, "copy or write the file again") from error
    if not isinstance(loaded, torch.Tensor):
        kind = type(loaded).__name__
        found = f"a {kind} with keys {', '.join(map(str, loaded))}" if isinstance(loaded, dict) else f"a {kind}"
        raise defect(path, found, _EXPECTED, "save the feature tensor alone")
    if loaded.layout != torch.strided:
        raise defect(path, f"a tensor of layout {loaded.layout}", "a dense tensor", "save tensor.to_dense()")
    return loaded.detach()


def _numpy_dtype(path: Path, tensor: torch.Tensor) -> np.dtype:
    try:
        return np.dtype(str(tensor.dtype).removeprefix("torch."))
    except TypeError as error:
        raise defect(path, f"a tensor of {tensor.dtype}", "float16, bfloat16, float32 or float64") from error


def _values(tensor: torch.Tensor) -> np.ndarray:
    """Copy a tensor out of its mapped file; bfloat16, which NumPy lacks, becomes float32 without loss."""
    wide = tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
    return np.array(wide.numpy())
