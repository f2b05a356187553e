"""The presets: values that replace field defaults."""

from __future__ import annotations

from typing import Any

# What a preset sets beyond the field defaults, which are the published ones.
PRESETS: dict[str, dict[str, Any]] = {
    "published": {"train": {"batch_size": 1, "patience": 10}},
    "default": {
        "omics": {"scale": "winsor", "select": {"method": "none"}},
        "model": {
            "encoder": {"dim": 64, "dropout": 0.5, "attention_dropout": 0.0},
            "memory": {"codes": 8, "dim": 16, "focus_growth": 0.7},
            "classifier": {"hidden": 32, "dropout": 0.5},
            "wide": {"enabled": True, "lr_factor": 0.5},
            "programmes": {"dim": 10, "lr_factor": 0.5},
            "teacher": {"weight": 0.7},
            "loss": {"task": 1.0, "memory": 0.0, "rna": 0.0, "slide": 0.0, "reconstruction": 0.0},
        },
        "train": {
            "epochs": 20,
            "least_steps": 120,
            "batch_size": "auto",
            "lr": 2.0e-3,
            "weight_decay": 0.1,
            "clip": 5.0,
            "members": 6,
            "sampling": "shuffled",
            "schedule": "cosine",
            "average": 0.99,
        },
    },
}
