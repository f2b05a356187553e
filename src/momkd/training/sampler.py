"""The order of the slides of an epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from momkd.training.samples import Sample


def balanced_epoch(samples: Sequence[Sample], generator: torch.Generator) -> list[Sample]:
    """Draw one epoch: as many slides as there are, with replacement.

    Each class is as likely as the others, each patient as likely as the others of its class, each slide as likely as
    the others of its patient: a patient with many slides does not count more.
    """
    slides = Counter(sample.patient_id for sample in samples)
    patients = Counter({sample.patient_id: sample.label for sample in samples}.values())
    weights = [1.0 / (patients[sample.label] * slides[sample.patient_id]) for sample in samples]
    drawn = torch.multinomial(
        torch.tensor(weights, dtype=torch.float64), len(samples), replacement=True, generator=generator
    )
    return [samples[i] for i in drawn.tolist()]


def shuffled_epoch(samples: Sequence[Sample], generator: torch.Generator) -> list[Sample]:
    """Every slide once, in random order: the classes are as frequent as they are."""
    return [samples[i] for i in torch.randperm(len(samples), generator=generator).tolist()]
