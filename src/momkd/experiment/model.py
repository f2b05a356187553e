"""The network of an experiment."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from momkd.experiment.memory_rules import contradictions
from momkd.experiment.section import Count, Fraction, NonNegative, Positive, Section

Strength = Annotated[float, Field(ge=0.0, le=1.0)]


MethodName = Literal[
    "momkd",
    "mean-pool",
    "max-pool",
    "linear",
    "abmil",
    "clam-sb",
    "clam-mb",
    "dsmil",
    "transmil",
    "dtfd",
    "patch-gcn",
    "wikg",
    "soft-labels-linear",
    "soft-labels",
    "feature-regression",
    "infonce",
    "sp",
    "rkd",
    "cc",
    "crd",
    "mkd",
    "g-hanet",
    "tdc",
    "tangle",
    "rna-linear",
    "rna-mlp",
    "slide+rna",
]


class BaselineSettings(Section):
    """Sizes that the other methods share (model.name); what a paper fixes beyond them stands in the method's file."""

    dim: Count = Field(512, description="patch embedding")
    attention: Count = Field(256, description="hidden width of the gated attention")
    dropout: Fraction = 0.25
    weight: NonNegative = Field(1.0, description="factor of all that a privileged method adds to the task loss")
    wikg_sums: bool = Field(False, description="WiKG with the product of sums of its published code")


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


class DecouplingSettings(Section):
    """How much of each crossing into the memory is stopped: what it does to the codes is multiplied by 1 − strength.

    That is its gradient and, under the rules that follow projections, what its projections add.
    """

    classifier: Strength = Field(1.0, description="attention → codes; 1 is the published gradient stop")
    rna: Strength = Field(0.0, description="RNA alignment, RNA projections → codes")
    slide: Strength = Field(0.0, description="slide alignment, slide projections → codes")


class MemorySettings(Section):
    """The class-conditional memory on the unit sphere (docs/memory.md has the equation of every option)."""

    update: Literal["gradient", "ema", "hybrid", "fixed", "queue"] = Field(
        "gradient", description="what moves the codes"
    )
    momentum: Fraction = Field(0.99, description="m of ema and hybrid: S ← m·S + (1−m)·Σ queries, c = S/|S|")
    lr_mult: Positive = Field(1.0, description="learning-rate factor of the codes under gradient and hybrid")
    codes: Count = Field(16, description="K, codes per class")
    dim: Count = Field(64, description="S, dimension of the shared sphere")
    init: Literal["kmeans", "random", "warmup"] = "kmeans"
    init_patches: Count = Field(50_000, description="at most so many training patches a class enter the k-means")
    warmup_epochs: Count = Field(3, description="init: warmup has the k-means after so many epochs")
    revive: int = Field(0, ge=0, description="a code that won no query for so many epochs is moved; 0 = never")
    temperature: Annotated[float, Field(ge=0.01, le=2.0)] = Field(0.2, description="initial τ of the attention")
    learn_temperature: bool = True
    focus_growth: NonNegative = Field(
        0.0, description="g: in prediction the attention of P patches has temperature τ / f, f = max(1, g·ln P)"
    )
    margin: float = 0.3
    alignment_scale: Positive = 20.0
    sharpness: Positive = Field(5.0, description="β of the log-sum-exp over the codes")
    offset: bool = Field(True, description="φ is the log-sum-exp itself; false subtracts ln K / β")
    orthogonality: Literal["within", "across", "both", "none"] = Field("within", description="which codes are spread")
    decoupling: DecouplingSettings = DecouplingSettings()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        found = contradictions(self)
        if found:
            raise ValueError("; ".join(found))
        return self


class WideSettings(Section):
    """A linear path beside the network, from the mean patch features to the scores: u·x̄ + b."""

    enabled: bool = False
    weight_decay: NonNegative = 0.1
    lr_factor: Positive = Field(1.0, description="learning rate of u over train.lr")


class ProgrammeSettings(Section):
    """The programme memory: omics prototypes of each class, against which a slide's predicted programmes are read."""

    dim: int = Field(0, ge=0, description="n, leading principal components of an omics table; 0 = no programme memory")
    codes: Count = Field(8, description="K, prototypes per class")
    vote: Annotated[float, Field(ge=0.0, le=1.0)] = Field(0.5, description="ν, the memory's share of the scores")
    weight_decay: NonNegative = Field(0.1, description="of the maps A and B that predict the programmes")
    lr_factor: Positive = Field(1.0, description="learning rate of A and B over train.lr")
    read_lr_factor: Positive = Field(10.0, description="learning rate of the read-out ω over train.lr")


class TeacherSettings(Section):
    """Soft labels: out-of-fold scores of a linear omics teacher, fitted on the training patients."""

    weight: Annotated[float, Field(ge=0.0, le=1.0)] = Field(0.0, description="λ, share of the soft label; 0 = none")
    c: Positive = Field(1e-3, description="inverse ridge penalty of the teacher")
    folds: Annotated[int, Field(ge=2)] = 5
    spread: Positive = Field(1.5, description="standard deviation that the teacher's log-odds are scaled to")
    tables: tuple[str, ...] = Field((), description="the omics tables that teach, by name; none named = all")


class ClassifierSettings(Section):
    """The classification head."""

    hidden: Count = Field(128, description="C")
    dropout: Fraction = 0.5


class LossSettings(Section):
    """Weights of the losses: the five published ones and the two of the programme memory."""

    task: NonNegative = 0.5
    memory: NonNegative = 0.1
    rna: NonNegative = 0.05
    slide: NonNegative = 0.2
    reconstruction: NonNegative = 0.05
    orthogonality: NonNegative = Field(10.0, description="inside the memory loss")
    programme: NonNegative = Field(1.0, description="predicted against true affinities; model.programmes.dim > 0")
    vote: NonNegative = Field(1.0, description="task loss of the memory's vote; model.programmes.dim > 0")


class ModelSettings(Section):
    """The network; ``preset`` sets ``model`` and ``train`` fields that the file does not."""

    name: MethodName = "momkd"
    preset: Literal["default", "published"] = "default"
    encoder: EncoderSettings = EncoderSettings()
    rna: RnaSettings = RnaSettings()
    memory: MemorySettings = MemorySettings()
    classifier: ClassifierSettings = ClassifierSettings()
    wide: WideSettings = WideSettings()
    programmes: ProgrammeSettings = ProgrammeSettings()
    teacher: TeacherSettings = TeacherSettings()
    loss: LossSettings = LossSettings()
    baseline: BaselineSettings = BaselineSettings()
