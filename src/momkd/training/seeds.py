"""Random streams that depend on names, not on what ran before: the reason why a resumed run equals an uninterrupted
one.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one named purpose of one run, from SHA-256 of the seed and the names."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for one named purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))
