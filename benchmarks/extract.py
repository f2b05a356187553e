"""Patches per second of momkd extract's way (read, resize, encode) against the same encoder alone on patches in memory.

python benchmarks/extract.py [--slide FILE] [--encoder NAME --checkpoint FILE] [--batch-size 64] [--repeats 3]

Needs the extra wsi. Without --slide it takes a real slide beside the project, or paints one if there is none.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import cpu_name, in_turns

from momkd.extract.encode import choose_device, choose_precision, encode
from momkd.extract.encoders import Encoder, load_encoder
from momkd.extract.settings import ExtractSettings
from momkd.extract.sources import Slide
from momkd.extract.stream import stream_patches
from momkd.extract.tiling import open_slide, tile

REAL = Path(__file__).resolve().parents[2] / "shared/data/slides/TCGA-CR-7395-01A-01-TS1.svs"


def painted(folder: Path) -> Path:
    """A tiled TIFF of tissue-coloured noise, 3072 × 3072."""
    import tifffile

    rng = np.random.default_rng(0)
    nuclei = np.kron(rng.random((384, 384)) < 0.35, np.ones((8, 8), bool))
    image = np.where(nuclei[..., None], (110, 60, 140), (226, 150, 190)).astype(np.uint8)
    path = folder / "painted.tif"
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", compression="deflate")
    return path


def bare_loop(encoder: Encoder, patches: torch.Tensor, size: int, precision: str) -> Callable[[], object]:
    """The encoder on patches that lie in memory already (as uint8), result kept on the device."""

    def loop() -> list[torch.Tensor]:
        with torch.inference_mode(), torch.autocast(patches.device.type, torch.bfloat16, enabled=precision == "bf16"):
            found = [encoder.embed(part) for part in patches.split(size)]
        if patches.device.type == "cuda":
            torch.cuda.synchronize()
        return found

    return loop


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    device = choose_device(chosen.device)
    precision = choose_precision("auto", device)
    encoder = load_encoder(chosen.encoder, chosen.checkpoint, device=device)
    settings = ExtractSettings(slide_mpp=0.5)
    with tempfile.TemporaryDirectory() as folder:
        path = chosen.slide or (REAL if REAL.is_file() else painted(Path(folder)))
        with open_slide(Slide(path.stem, path), settings) as (opened, mpp_from):
            start = time.perf_counter()
            tiling = tile(Slide(path.stem, path), opened, mpp_from, settings)
            tiling_seconds = time.perf_counter() - start

            def batches() -> object:
                return stream_patches(
                    opened.reader,
                    tiling.requests,
                    settings.patch_size,
                    batch_size=chosen.batch_size,
                    workers=chosen.workers,
                )

            def ours() -> object:
                n = len(tiling.requests)
                return encode(encoder, batches(), n, device=device, precision=precision, dtype="float16")

            loaded = torch.from_numpy(np.concatenate(list(batches()))).permute(0, 3, 1, 2).to(device)
            bare = bare_loop(encoder, loaded, chosen.batch_size, precision)
            seconds = in_turns(chosen.repeats, time.perf_counter, bare=bare, ours=ours, read=lambda: list(batches()))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    print(f"{where}; {encoder.name}, {precision}; {path.name}, {len(loaded)} patches of {settings.patch_size} px")
    print(f"{'tiling, s':>10} {'read, /s':>9} {'bare, /s':>9} {'ours, /s':>9} {'ours / bare':>12}")
    rates = {name: len(loaded) / value for name, value in seconds.items()}
    print(
        f"{tiling_seconds:10.2f} {rates['read']:9.1f} {rates['bare']:9.1f} {rates['ours']:9.1f} "
        f"{rates['ours'] / rates['bare']:12.2f}"
    )


if __name__ == "__main__":
    main()
