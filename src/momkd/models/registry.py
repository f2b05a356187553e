"""The methods by name. To add one: write its file, name it here and in ``experiment.model.MethodName``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from momkd.experiment import ModelSettings
from momkd.models.method import Method, PairedModel, SlideModel, Supervised
from momkd.models.momkd import MoMKD
from momkd.models.outcome import Outcome
from momkd.models.student import Student

# What omics a method is given: none, those of the training patients, or those of the test patients too.
Omics = Literal["none", "train", "test"]


@dataclass(frozen=True)
class Entry:
    """A method: where its student and, unless labels alone teach it, its ``Method`` are (module of momkd.models:class).

    The student is made as ``Student(in_dim, outcome, settings)``, or with the number of omics columns as a fourth
    argument where it is given omics at test; the method as ``Method(student, settings, genes)``, genes being the number
    of columns of each omics table. ``soft``: it needs the scores of the omics teacher; ``solved``: its method is a
    ``ClosedForm``.
    """

    words: str
    student: str
    method: str | None = None
    omics: Omics = "none"
    soft: bool = False
    solved: bool = False


def _abmil(words: str, method: str, soft: bool = False) -> Entry:
    """Omics teach ABMIL in training."""
    return Entry(words, "baselines.abmil:ABMIL", f"baselines.{method}", "train", soft=soft)


METHODS: dict[str, Entry] = {
    "momkd": Entry("momentum memory (2026), the student and its teachers", "student:Student", "momkd:MoMKD", "train"),
    "mean-pool": Entry("mean of embedded patches", "baselines.mean_pool:MeanPool"),
    "max-pool": Entry("maximum of embedded patches", "baselines.max_pool:MaxPool"),
    "linear": Entry(
        "ridge or logistic regression on mean features",
        "baselines.linear:Linear",
        "baselines.linear:LinearFit",
        solved=True,
    ),
    "abmil": Entry("gated attention (Ilse 2018)", "baselines.abmil:ABMIL"),
    "clam-sb": Entry("attention, instance clustering (Lu 2021)", "baselines.clam:ClamSB", "baselines.clam:Clam"),
    "clam-mb": Entry("the same, a map a class (Lu 2021)", "baselines.clam:ClamMB", "baselines.clam:Clam"),
    "dsmil": Entry(
        "critical patch and attention to it (Li 2021)", "baselines.dsmil:DSMILModel", "baselines.dsmil:DSMIL"
    ),
    "transmil": Entry("transformer over patches (Shao 2021)", "baselines.transmil:TransMIL"),
    "dtfd": Entry("pseudo-bags in two tiers (Zhang 2022)", "baselines.dtfd:DTFDModel", "baselines.dtfd:DTFD"),
    "patch-gcn": Entry("graph convolutions (Chen 2021)", "baselines.patch_gcn:PatchGCN"),
    "wikg": Entry("knowledge-aware graph (Li 2024)", "baselines.wikg:WiKG"),
    "soft-labels-linear": Entry(
        "ridge regression of omics soft labels on mean features (Lopez-Paz 2015)",
        "baselines.linear:Linear",
        "baselines.soft_labels_linear:SoftLabelsLinear",
        "train",
        soft=True,
        solved=True,
    ),
    "soft-labels": _abmil(
        "labels and soft labels of an omics teacher (Lopez-Paz 2015)", "soft_labels:SoftLabels", True
    ),
    "feature-regression": _abmil(
        "predicts the omics embedding (FitNets, Romero 2015)", "feature_regression:FeatureRegression"
    ),
    "infonce": _abmil("contrast with the omics of the mini-batch (InfoNCE, van den Oord 2018)", "contrastive:InfoNCE"),
    "sp": _abmil("keeps the similarities among the omics of a mini-batch (Tung 2019)", "relational:SP"),
    "rkd": _abmil("keeps the distances and angles among the omics of a mini-batch (Park 2019)", "relational:RKD"),
    "cc": _abmil("keeps the kernel among the omics of a mini-batch (Peng 2019)", "relational:CC"),
    "crd": _abmil("contrast with memories of all training slides (Tian 2020)", "crd:CRD"),
    "mkd": _abmil("omics and multimodal teachers learn beside the student (Zhang 2025)", "mkd:MKD"),
    "g-hanet": Entry(
        "tokens that read a slide and tell its gene groups (Wang 2025)",
        "baselines.g_hanet:GHANet",
        "baselines.g_hanet:GHANetMethod",
        "train",
    ),
    "tdc": _abmil("contrast and logits of a multimodal teacher where they agree (Xing 2023)", "tdc:TDC"),
    "tangle": _abmil("aligned with omics first, then a linear probe (Jaume 2024)", "tangle:TANGLE"),
    "rna-linear": Entry(
        "ridge or logistic regression on omics",
        "baselines.upper_bounds:OmicsLinear",
        "baselines.upper_bounds:OmicsLinearFit",
        "test",
        solved=True,
    ),
    "rna-mlp": Entry("network on omics", "baselines.upper_bounds:OmicsMLP", "baselines.upper_bounds:Paired", "test"),
    "slide+rna": Entry(
        "slide and omics", "baselines.upper_bounds:SlideAndOmics", "baselines.upper_bounds:Paired", "test"
    ),
}


def make_method(in_dim: int, outcome: Outcome, settings: ModelSettings, genes: Mapping[str, int]) -> Method:
    """The method of an experiment; ``genes`` as in ``MoMKD``."""
    if settings.name == "momkd":
        return MoMKD(in_dim, outcome, settings, genes)
    entry = METHODS[settings.name]
    columns = (sum(genes.values()),) if entry.omics == "test" else ()
    student = _found(entry.student)(in_dim, outcome, settings, *columns)
    made: Method = Supervised(student) if entry.method is None else _found(entry.method)(student, settings, genes)
    return made


def make_student(in_dim: int, outcome: Outcome, settings: ModelSettings, programmes: Sequence[str]) -> SlideModel:
    """The half of a method that a student folder holds, with weights yet to be loaded."""
    if settings.name == "momkd":
        return Student(in_dim, outcome, settings, programmes)
    student = _found(METHODS[settings.name].student)(in_dim, outcome, settings)
    if isinstance(student, PairedModel):
        raise ValueError(f"{settings.name} needs omics at test, so no student can hold it")
    made: SlideModel = student
    return made


def _found(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(f"momkd.models.{module}"), name)
