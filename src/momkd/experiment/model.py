"""The network of an experiment."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from momkd.experiment.section import Count, Fraction, NonNegative, Positive, Section


class EncoderSettings(Section):
    """The slide encoder: two GATv2 layers with residuals (spec: Branches)."""

    dim: Count = Field(512, description="W")
    heads: Count = 2
    attention_dropout: Fraction = 0.5
    dropout: Fraction = 0.5

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        return self


class RnaSettings(Section):
    """The RNA encoder and decoder."""

    hidden: Count = 512
    dim: Count = Field(512, description="R")
    dropout: Fraction = 0.25


class MemorySettings(Section):
    """The class-conditional memory on the unit sphere."""

    update: Literal["gradient"] = "gradient"
    codes: Count = Field(16, description="K, codes per class")
    dim: Count = Field(64, description="S, dimension of the shared sphere")
    init: Literal["kmeans", "random"] = "kmeans"
    init_patches: Count = Field(50_000, description="at most so many training patches a class enter the k-means")
    temperature: Annotated[float, Field(ge=0.01, le=2.0)] = Field(0.2, description="initial τ of the attention")
    margin: float = 0.3
    alignment_scale: Positive = 20.0
    sharpness: Positive = Field(5.0, description="of the log-sum-exp over the codes")


class ClassifierSettings(Section):
    """The classification head."""

    hidden: Count = Field(128, description="C")
    dropout: Fraction = 0.5


class LossSettings(Section):
    """Weights of the five losses."""

    task: NonNegative = 0.5
    memory: NonNegative = 0.1
    rna: NonNegative = 0.05
    slide: NonNegative = 0.2
    reconstruction: NonNegative = 0.05
    orthogonality: NonNegative = Field(10.0, description="inside the memory loss")


class ModelSettings(Section):
    """The network; ``preset`` sets ``model`` and ``train`` fields that the file does not."""

    name: Literal["momkd"] = "momkd"
    preset: Literal["default", "published"] = "default"
    encoder: EncoderSettings = EncoderSettings()
    rna: RnaSettings = RnaSettings()
    memory: MemorySettings = MemorySettings()
    classifier: ClassifierSettings = ClassifierSettings()
    loss: LossSettings = LossSettings()
