"""The presets: values that replace field defaults."""

from __future__ import annotations

from typing import Any

# What a preset sets beyond the field defaults, which are the published ones.
PRESETS: dict[str, dict[str, Any]] = {
    "published": {"train": {"batch_size": 1, "patience": 10}},
    "default": {
        "model": {
            "encoder": {"dim": 128, "dropout": 0.5},
            "rna": {"hidden": 128, "dim": 64},
            "memory": {"codes": 8, "dim": 32},
            "classifier": {"hidden": 64},
        },
        "train": {"batch_size": 16, "lr": 1.0e-3, "weight_decay": 1.0e-2},
    },
}
