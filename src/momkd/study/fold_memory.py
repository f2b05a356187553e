"""What RNA looks like in the space of a fold's memories: kept with the run, never in a student folder.

RUN/fold-r-f/memory.safetensors     of the first member: <memory>/codes (C, K, n) and, by omics table,
                                    <memory>/<table> (M, n), unit rows of the training patients named in its header
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as dump_tensors
from torch import Tensor

from momkd.errors import RunError
from momkd.files import atomic_path
from momkd.models.method import Method
from momkd.models.momkd import MoMKD
from momkd.training.samples import FitData

FILE, SHARED = "memory.safetensors", "memory"
FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class MemorySpace:
    """A memory: ``codes`` (C, K, n) and, by omics table, unit rows (M, n) of training patients and who they are."""

    codes: FloatArray
    rna: Mapping[str, FloatArray]
    patients: Mapping[str, tuple[str, ...]]


@torch.no_grad()
def write_memory(folder: Path, model: Method, data: FitData) -> None:
    """Write the memories of a fitted MoMKD that omics has taught; nothing for other methods."""
    if not isinstance(model, MoMKD) or not data.tables:
        return
    tensors: dict[str, Tensor] = {}
    patients: dict[str, list[str]] = {}
    for name, memory in model.student.programme_memories().items():
        table = data.tables[name]
        if table.profiles is not None:
            tensors |= {f"{name}/codes": memory.codes, f"{name}/{name}": table.profiles.values[:-1]}
            patients[name] = list(table.profiles.row)
    if model.updates is not None:
        tensors[f"{SHARED}/codes"] = model.student.memory.sphere()
        device = model.student.memory.codes.device
        for name, branch in model.branches.items():
            rows = data.tables[name].rows
            tensors[f"{SHARED}/{name}"] = branch(rows.values[:-1].to(device))[0]
            patients[name] = list(rows.row)
    if not tensors:
        return
    whole = {key: value.detach().cpu().contiguous() for key, value in sorted(tensors.items())}
    with atomic_path(folder / FILE) as temporary:
        temporary.write_bytes(dump_tensors(whole, {"patients": json.dumps(patients, sort_keys=True)}))


def read_memory(folder: Path) -> dict[str, MemorySpace]:
    """The memories of a fold by name; raises RunError where it left none."""
    path = folder / FILE
    if not path.is_file():
        raise RunError(
            f"{path}: no such file; only folds of momkd with omics leave it, since this version: run momkd crossval "
            "again in a new folder"
        )
    try:
        with safe_open(path, "np") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
        patients = {name: tuple(own) for name, own in json.loads(header["patients"]).items()}
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path}: not the memory of a fold: {error}") from error
    found = {}
    for name in sorted({key.split("/", 1)[0] for key in tensors}):
        rna = {key.split("/", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{name}/")}
        codes = rna.pop("codes")
        found[name] = MemorySpace(codes, rna, {table: patients[table] for table in rna})
    return found
