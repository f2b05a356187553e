"""The data of an experiment: cohort, features, graph, task, and how patients are divided (omics: ``omics.py``)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from momkd.experiment.section import Count, Positive, Section

# Of a folder in an object store or on a web server.
Url = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9+]*://")]


class CohortSettings(Section):
    """Where the cohort table is and what its columns are called; one row a slide."""

    table: Path
    patient: str = "patient_id"
    slide: str = "slide_id"
    group: str | None = Field(None, description="patients of one group (a site, a scanner) never straddle folds")
    exclude: tuple[str, ...] = Field((), description="slide ids that are left out on purpose; listed in every run")


class FeatureSettings(Section):
    """The patch features: one file a slide, in any layout that momkd reads.

    ``dir`` may be a URL (s3://bucket/features, gs://, az://, https://); ``docs/cluster.md`` says what then happens.
    """

    dir: Url | Path
    normalize: Literal["none", "standard", "quantile"] = Field("none", description="fitted on training patients")
    slide_mpp: Positive | Path | None = Field(
        None, description="µm per level-0 pixel where files lack it: a number, or a CSV with slide_id and mpp"
    )
    store: Path | None = Field(None, description="folder of a packed copy of the features, made on first use")
    store_dtype: Literal["float16", "bfloat16", "float32"] = Field("float16", description="of the packed features")


class GraphSettings(Section):
    """The patch graph."""

    k: int = Field(8, ge=0, description="nearest neighbours; 0 = self-loops only; a file's own edges win over k > 0")


TaskType = Literal["classification", "ordinal", "continuous", "survival"]

# Bins of the memory where the task has no classes: quantiles of the values, intervals of the time.
_BINS: dict[TaskType, int] = {"continuous": 3, "survival": 4}


class TaskSettings(Section):
    """What is predicted.

    ``bins`` is 0 for the tasks that have classes: there the memory has one codebook a class.
    """

    type: TaskType = "classification"
    label: str = Field(description="column of the class or the value; for survival, of the time")
    event: str | None = Field(None, description="survival: column that says whether the time ends in the event")
    classes: tuple[str, ...] = Field((), description="the last of two is the positive class; ordinal: in rising order")
    map: dict[str, str] = Field(
        default_factory=dict, description="table value → class, where they are not the same word"
    )
    bins: int = Field(0, ge=0, description="codebooks of the memory: quantiles (continuous), time intervals (survival)")
    from_omics: bool = Field(False, description="the label was computed from the omics: reports say what that means")

    @property
    def categorical(self) -> bool:
        """Whether classes are predicted, in an order or in none."""
        return self.type in ("classification", "ordinal")

    @property
    def binary(self) -> bool:
        """Whether it is a classification of two classes, the one task that has a positive class and a threshold."""
        return self.type == "classification" and len(self.classes) == 2

    @model_validator(mode="before")
    @classmethod
    def _usual_bins(cls, value: object) -> object:
        if isinstance(value, dict) and "bins" not in value and value.get("type") in _BINS:
            return {**value, "bins": _BINS[value["type"]]}
        return value

    @field_validator("classes", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return [str(item) for item in value] if isinstance(value, list | tuple) else value

    @field_validator("map", mode="before")
    @classmethod
    def _as_text_map(cls, value: object) -> object:
        return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.categorical:
            self._check_classes()
        else:
            self._check_no_classes()
        if self.type == "survival" and self.event is None:
            raise ValueError("event is missing: type survival needs the column that says who had the event")
        if self.type != "survival" and self.event is not None:
            raise ValueError(f"event is for type survival; this is type {self.type}")
        if self.event == self.label:
            raise ValueError(f"event and label are both {self.label!r}; label is the time, event another column")
        return self

    def _check_classes(self) -> None:
        if len(self.classes) < 2:
            raise ValueError(
                f"type {self.type} needs two classes or more in classes, found {list(self.classes)}; "
                "a column of numbers is type continuous"
            )
        folded = [name.strip().casefold() for name in self.classes]
        if len(set(folded)) != len(folded):
            raise ValueError(f"classes {list(self.classes)} are not distinct (upper and lower case are the same)")
        unknown = sorted({target for target in self.map.values() if target.strip().casefold() not in folded})
        if unknown:
            raise ValueError(f"map points to {unknown}, which are not among the classes {list(self.classes)}")
        if self.bins:
            raise ValueError(f"bins is for types continuous and survival; type {self.type} has its classes")

    def _check_no_classes(self) -> None:
        for name in ("classes", "map"):
            if getattr(self, name):
                raise ValueError(f"{name} is for types classification and ordinal; type {self.type} has no classes")
        if self.bins < 2:
            raise ValueError(f"bins is {self.bins}; type {self.type} needs 2 or more")


class CvSettings(Section):
    """How patients are divided."""

    folds: Annotated[int, Field(ge=2)] = 5
    repeats: Count = 1
    validation: Annotated[float, Field(gt=0.0, lt=0.9)] = Field(0.15, description="share of the training patients")
    seed: int = Field(0, ge=0)
    splits: Path | None = Field(None, description="your own splits.csv: repeat, fold, role, patient_id")
