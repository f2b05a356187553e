"""How an experiment is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from momkd.experiment.section import Count, Fraction, NonNegative, Positive, Section


class TrainSettings(Section):
    """One fit."""

    epochs: Count = 100
    patience: Count = Field(10, description="epochs without a better validation AUC before stopping")
    lr: Positive = 2.0e-4
    weight_decay: NonNegative = 1.0e-4
    batch_size: Count | Literal["auto"] = Field(
        16, description="slides a step; auto: 16, or 64 where a slide is one vector"
    )
    clip: NonNegative = Field(16.0, description="largest gradient norm; 0 = no clipping")
    plateau_factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    plateau_patience: Count = 5
    members: Count = Field(1, description="M networks that vote as one student; above 1 they are cross-fitted")
    sampling: Literal["balanced", "shuffled"] = Field("balanced", description="shuffled: every slide once an epoch")
    schedule: Literal["plateau", "cosine"] = Field("plateau", description="cosine: all epochs, no early stopping")
    warm_up: int = Field(10, ge=0, description="steps over which the learning rate rises; schedule: cosine")
    least_steps: int = Field(0, ge=0, description="more epochs where `epochs` gives fewer steps; schedule: cosine")
    average: Fraction = Field(
        0.0, description="decay of the averaged weights that are kept; 0 = the weights themselves"
    )
    seed: int = Field(0, ge=0)
    threads: Count | Literal["auto"] = Field("auto", description="CPU threads a fit; auto: from data, folds and cores")
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["32", "bf16"] = Field("32", description="of the training step; weights stay in float32")
    max_patches_per_step: Count | None = Field(None, description="a larger step is computed in parts that add up to it")
    max_patches_per_slide: Count | None = Field(None, description="training only: a random sample of a larger slide")

    @property
    def slides_a_step(self) -> int:
        """``batch_size`` as a number. Raises ValueError where it is still ``auto``, which a study resolves."""
        if self.batch_size == "auto":
            raise ValueError("train.batch_size is auto; give a fit a number, or resolve it from the data")
        return self.batch_size

    @field_validator("precision", mode="before")
    @classmethod
    def _precision_as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
