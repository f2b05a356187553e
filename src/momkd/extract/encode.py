"""Batches of patches → features."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch

from momkd.extract.encoders import Encoder
from momkd.extract.faults import fault

_FLOAT16_MAX = float(np.finfo(np.float16).max)


def choose_device(name: str) -> torch.device:
    """Return the device of ``--device``: auto is CUDA, else another accelerator of torch, else the CPU.

    Raises ExtractError for a device that torch does not know or that is not there.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return torch.device("cpu") if found is None else found
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        mend = "--device auto or cpu"
        raise fault("--device", f"{name!r}: {' '.join(str(error).split())[:200]}", "a device here", mend) from error
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """Return float32 or bf16: ``--precision`` auto is bf16 on CUDA devices that have it, float32 elsewhere."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def encode(
    encoder: Encoder,
    batches: Iterable[np.ndarray],
    n_patches: int,
    *,
    device: torch.device,
    precision: str,
    dtype: str,
    watch: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Return features (P, D) of ``dtype`` for batches (b, h, w, 3) uint8 that hold ``n_patches`` patches together.

    ``watch`` is called with the number of patches done. Raises ExtractError where the device's memory does not hold
    a batch, where a feature is not finite, and where float16 cannot hold one.
    """
    features = np.empty((n_patches, encoder.width), dtype)
    done = 0
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for batch in batches:
            try:
                values = encoder.embed(to_tensor(batch, device)).float().cpu().numpy()
            except torch.OutOfMemoryError as error:
                found = f"a batch of {len(batch)} patches does not fit into the memory of {device}"
                raise fault(f"encoder {encoder.name}", found, mend="give a smaller --batch-size") from error
            _check(encoder, values, dtype)
            features[done : done + len(values)] = values
            done += len(values)
            if watch is not None:
                watch(done)
    return features


def to_tensor(batch: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return patches (b, h, w, 3) uint8 as a tensor (b, 3, h, w) uint8 on ``device``, channels last in memory."""
    tensor = torch.from_numpy(batch)
    if device.type == "cuda":
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device).permute(0, 3, 1, 2)


def _check(encoder: Encoder, values: np.ndarray, dtype: str) -> None:
    if values.ndim != 2 or values.shape[1] != encoder.width:
        found = f"features of shape {values.shape}"
        raise fault(f"encoder {encoder.name}", found, f"(patches, {encoder.width})")
    if not np.isfinite(values).all():
        raise fault(f"encoder {encoder.name}", "NaN or infinite features", mend="try --precision float32")
    if dtype == "float16" and float(np.abs(values).max()) > _FLOAT16_MAX:
        found = f"features reach {float(np.abs(values).max()):.6g}, which float16 cannot hold"
        raise fault(f"encoder {encoder.name}", found, f"values up to {_FLOAT16_MAX:.0f}", "give --dtype float32")
