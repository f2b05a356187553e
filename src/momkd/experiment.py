"""The experiment file: one YAML document that says everything a run depends on.

Merged in this order, the later winning: field defaults ← preset ← file ← ``--set`` overrides. Unknown keys are errors
that name the nearest known key. Relative paths are relative to the file. The resolved experiment is
written into every run.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from momkd.errors import ExperimentError

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    """A frozen section of the file that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CohortSettings(_Section):
    """Where the cohort table is and what its columns are called; one row a slide."""

    table: Path
    patient: str = "patient_id"
    slide: str = "slide_id"
    group: str | None = Field(None, description="patients of one group (a site, a scanner) never straddle folds")
    exclude: tuple[str, ...] = Field((), description="slide ids that are left out on purpose; listed in every run")


class FeatureSettings(_Section):
    """The patch features: one file a slide, in any layout that momkd reads."""

    dir: Path
    normalize: Literal["none", "standard", "quantile"] = Field("none", description="fitted on training patients")
    slide_mpp: Positive | None = Field(None, description="µm per level-0 pixel, for layouts that store µm only (STAMP)")
    store: Path | None = Field(None, description="folder of a packed copy of the features, made on first use")
    store_dtype: Literal["float16", "bfloat16", "float32"] = Field("float16", description="of the packed features")


class GraphSettings(_Section):
    """The patch graph."""

    k: int = Field(8, ge=0, description="nearest neighbours; 0 = self-loops only; a file's own edges win over k > 0")


class SelectSettings(_Section):
    """Which genes the RNA teacher sees; chosen on the training patients of each fold."""

    method: Literal["xgboost", "variance", "mad", "list", "none"] = "xgboost"
    n: Count = 768
    genes: tuple[str, ...] = Field((), description="for method: list")


class OmicsSettings(_Section):
    """The privileged table: patients × genes or genes × patients, CSV, TSV or Parquet."""

    table: Path
    transform: Literal["none", "log2p1"] = "none"
    scale: Literal["none", "standard"] = "standard"
    select: SelectSettings = SelectSettings()


class TaskSettings(_Section):
    """What is predicted."""

    type: Literal["classification"] = "classification"
    label: str
    classes: tuple[str, ...] = Field(min_length=2, description="the last of two is the positive class")
    map: dict[str, str] = Field(
        default_factory=dict, description="table value → class, where they are not the same word"
    )

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
        folded = [name.strip().casefold() for name in self.classes]
        if len(set(folded)) != len(folded):
            raise ValueError(f"classes {list(self.classes)} are not distinct (upper and lower case are the same)")
        unknown = sorted({target for target in self.map.values() if target.strip().casefold() not in folded})
        if unknown:
            raise ValueError(f"map points to {unknown}, which are not among the classes {list(self.classes)}")
        if len(self.classes) != 2:
            raise ValueError(f"{len(self.classes)} classes given; this version of momkd handles exactly 2")
        return self


class EncoderSettings(_Section):
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


class RnaSettings(_Section):
    """The RNA encoder and decoder."""

    hidden: Count = 512
    dim: Count = Field(512, description="R")
    dropout: Fraction = 0.25


class MemorySettings(_Section):
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


class ClassifierSettings(_Section):
    """The classification head."""

    hidden: Count = Field(128, description="C")
    dropout: Fraction = 0.5


class LossSettings(_Section):
    """Weights of the five losses."""

    task: NonNegative = 0.5
    memory: NonNegative = 0.1
    rna: NonNegative = 0.05
    slide: NonNegative = 0.2
    reconstruction: NonNegative = 0.05
    orthogonality: NonNegative = Field(10.0, description="inside the memory loss")


class ModelSettings(_Section):
    """The network; ``preset`` sets ``model`` and ``train`` fields that the file does not."""

    name: Literal["momkd"] = "momkd"
    preset: Literal["default", "published"] = "default"
    encoder: EncoderSettings = EncoderSettings()
    rna: RnaSettings = RnaSettings()
    memory: MemorySettings = MemorySettings()
    classifier: ClassifierSettings = ClassifierSettings()
    loss: LossSettings = LossSettings()


class TrainSettings(_Section):
    """One fit."""

    epochs: Count = 100
    patience: Count = Field(10, description="epochs without a better validation AUC before stopping")
    lr: Positive = 2.0e-4
    weight_decay: NonNegative = 1.0e-4
    batch_size: Count = Field(16, description="slides a step")
    clip: NonNegative = Field(16.0, description="largest gradient norm; 0 = no clipping")
    plateau_factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    plateau_patience: Count = 5
    seed: int = Field(0, ge=0)
    threads: Count | Literal["auto"] = Field("auto", description="CPU threads a fit; auto: from data, folds and cores")
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["32", "bf16"] = Field("32", description="of the training step; weights stay in float32")
    max_patches_per_step: Count | None = Field(None, description="a larger step is computed in parts that add up to it")
    max_patches_per_slide: Count | None = Field(None, description="training only: a random sample of a larger slide")

    @field_validator("precision", mode="before")
    @classmethod
    def _precision_as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class CvSettings(_Section):
    """How patients are divided."""

    folds: Annotated[int, Field(ge=2)] = 5
    repeats: Count = 1
    validation: Annotated[float, Field(gt=0.0, lt=0.9)] = Field(0.15, description="share of the training patients")
    seed: int = Field(0, ge=0)
    splits: Path | None = Field(None, description="your own splits.csv: repeat, fold, role, patient_id")


class Experiment(_Section):
    """Everything a run depends on."""

    cohort: CohortSettings
    features: FeatureSettings
    graph: GraphSettings = GraphSettings()
    omics: OmicsSettings | None = None
    task: TaskSettings
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    cv: CvSettings = CvSettings()

    def to_yaml(self) -> str:
        """Return the resolved experiment as YAML, with every field and absolute paths."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


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

_PATHS = (("cohort", "table"), ("features", "dir"), ("features", "store"), ("omics", "table"), ("cv", "splits"))


class _Loader(yaml.SafeLoader):
    """Safe YAML in which yes, no, on and off are words (class names!) and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key given twice: {', '.join(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _read_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with stricter rules


def load_experiment(source: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment file and apply ``a.b=c`` overrides.

    Raises ExperimentError naming the file, the key, what was found and what is allowed.
    """
    source = Path(source)
    try:
        raw = _read_yaml(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExperimentError(f"{source}: no such experiment file → `momkd init` writes a template") from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ExperimentError(f"{source}: not a readable YAML file: {error}") from error
    if not isinstance(raw, dict):
        raise ExperimentError(
            f"{source}: found {type(raw).__name__}, expected sections such as cohort:, features:, task:"
        )
    return build_experiment(raw, base=source.parent, overrides=overrides, name=str(source))


def build_experiment(
    raw: Mapping[str, Any], *, base: Path, overrides: Sequence[str] = (), name: str = "experiment"
) -> Experiment:
    """Make an Experiment from a nested mapping; relative paths are taken from ``base``."""
    given = _merge({}, raw)
    for override in overrides:
        _apply_override(given, override)
    preset = _preset_of(given)
    merged = _merge(PRESETS.get(preset, {}), given)
    for section, key in _PATHS:
        block = merged.get(section)
        if isinstance(block, dict) and isinstance(block.get(key), str | Path):
            block[key] = str((base.resolve() / Path(block[key]).expanduser()).resolve())
    try:
        return Experiment.model_validate(merged)
    except ValidationError as error:
        raise ExperimentError(_explain(error, name)) from None


def _preset_of(given: Mapping[str, Any]) -> str:
    model = given.get("model")
    preset = model.get("preset", "default") if isinstance(model, dict) else "default"
    return preset if isinstance(preset, str) else "default"


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings, ``high`` winning; neither input is changed."""
    result: dict[str, Any] = {k: _merge({}, v) if isinstance(v, Mapping) else v for k, v in low.items()}
    for key, value in high.items():
        below = result.get(key)
        if isinstance(value, Mapping):
            result[key] = _merge(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def _apply_override(given: dict[str, Any], override: str) -> None:
    """Apply one "a.b=c"; c is read as YAML, so 3, true, null and [a, b] mean what they look like."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ExperimentError(f"--set {override!r}: expected section.key=value, for example --set train.epochs=20")
    try:
        value = _read_yaml(text)
    except yaml.YAMLError as error:
        raise ExperimentError(f"--set {override!r}: the value is not readable: {error}") from error
    block = given
    for key in keys[:-1]:
        below = block.get(key)
        if not isinstance(below, dict):
            below = {}
            block[key] = below
        block = below
    block[keys[-1]] = value


def _explain(error: ValidationError, name: str) -> str:
    """Turn pydantic's findings into one line each, in the words of the file."""
    lines = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = _known_keys(item["loc"][:-1])
            near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            lines.append(f"  - {place}: unknown key; {hint}")
        elif item["type"] == "missing":
            lines.append(f"  - {place}: missing, and it has no default")
        else:
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"  - {place or 'file'}: {message} (found {item['input']!r})" if place else f"  - {message}")
    return "\n".join([f"{name}: {len(lines)} problem{'s' if len(lines) > 1 else ''}:", *lines])


def _known_keys(location: Sequence[int | str]) -> list[str]:
    section: type[BaseModel] = Experiment
    for part in location:
        field = section.model_fields.get(str(part))
        candidates = () if field is None else (field.annotation, *getattr(field.annotation, "__args__", ()))
        section = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), section)
    return list(section.model_fields)
