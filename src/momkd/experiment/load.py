"""The experiment file, read: YAML, presets, overrides, and errors in the words of the file.

Merged in this order, the later winning: field defaults ← preset ← file ← ``--set`` overrides. Unknown keys are errors
that name the nearest known key. Relative paths are relative to the file. The resolved experiment is
written into every run.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import (
    BaseModel,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from momkd.errors import ExperimentError
from momkd.experiment.data import (
    CohortSettings,
    CvSettings,
    FeatureSettings,
    GraphSettings,
    TaskSettings,
)
from momkd.experiment.memory_rules import conflicts
from momkd.experiment.model import ModelSettings
from momkd.experiment.omics import OmicsSettings, TableName, as_written, disagreements, is_one_table, tables_by_name
from momkd.experiment.presets import PRESETS
from momkd.experiment.section import Section
from momkd.experiment.training import TrainSettings


class Experiment(Section):
    """Everything a run depends on."""

    cohort: CohortSettings
    features: FeatureSettings
    graph: GraphSettings = GraphSettings()
    omics: Mapping[TableName, OmicsSettings] | None = None
    task: TaskSettings
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    cv: CvSettings = CvSettings()

    @field_validator("omics", mode="before")
    @classmethod
    def _tables_by_name(cls, value: object) -> object:
        return tables_by_name(value)

    @field_serializer("omics", mode="wrap")
    def _as_written(self, value: object, dump: SerializerFunctionWrapHandler) -> object:
        tables = dump(value)
        return as_written(tables) if isinstance(tables, dict) else tables

    @model_validator(mode="after")
    def _agree(self) -> Self:
        found = conflicts(self.model, self.train)
        if self.omics is not None:
            found += disagreements(self.omics, self.model.teacher.tables)
        if found:
            raise ValueError("; ".join(found))
        return self

    def to_yaml(self) -> str:
        """Return the resolved experiment as YAML, with every field and absolute paths."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


_PATHS = (("cohort", "table"), ("features", "dir"), ("features", "store"), ("cv", "splits"))


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


def read_yaml(text: str) -> Any:
    """Read a value in the YAML of experiment files; raises yaml.YAMLError."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with stricter rules


def load_experiment(source: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment file and apply ``a.b=c`` overrides.

    A ``sweep`` section is for ``load_sweep`` and no part of the experiment. Raises ExperimentError naming the file, the
    key, what was found and what is allowed.
    """
    raw = read_file(source)
    raw.pop("sweep", None)
    return build_experiment(raw, base=Path(source).parent, overrides=overrides, name=str(source))


def read_file(source: Path) -> dict[str, Any]:
    """Read the sections of an experiment file as they stand there. Raises ExperimentError."""
    source = Path(source)
    try:
        raw = read_yaml(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExperimentError(f"{source}: no such experiment file → `momkd init` writes a template") from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ExperimentError(f"{source}: not a readable YAML file: {error}") from error
    if not isinstance(raw, dict):
        raise ExperimentError(
            f"{source}: found {type(raw).__name__}, expected sections such as cohort:, features:, task:"
        )
    return raw


def build_experiment(
    raw: Mapping[str, Any], *, base: Path, overrides: Sequence[str] = (), name: str = "experiment"
) -> Experiment:
    """Make an Experiment from a nested mapping; relative paths are taken from ``base``."""
    given = apply_overrides(raw, overrides)
    experiment, problems = try_build(given, base=base)
    if experiment is None:
        raise ExperimentError(
            "\n".join([f"{name}: {len(problems)} problem{'s' * (len(problems) > 1)}:", *(f"  - {p}" for p in problems)])
        )
    return experiment


def try_build(given: Mapping[str, Any], *, base: Path) -> tuple[Experiment | None, list[str]]:
    """Make an Experiment from a nested mapping, or say everything that is wrong with it, a line each."""
    written = given.get("omics")
    one_table = isinstance(written, Mapping) and is_one_table(written)
    given = {**given, "omics": tables_by_name(written)}
    merged = _merge(_preset_for(given), given)
    problems = _resolve_paths(merged, base.resolve())
    if problems:
        return None, problems
    try:
        return Experiment.model_validate(merged), []
    except ValidationError as error:
        return None, _explain(error, one_table=one_table)


def _preset_for(given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the preset; those of omics for each table. It fills in sections and makes none.

    Whoever says how many epochs there are gets so many: the preset's least number of steps is for its own epochs.
    """
    preset = dict(PRESETS.get(_preset_of(given), {}))
    train = given.get("train")
    if isinstance(train, Mapping) and "epochs" in train and "train" in preset:
        preset["train"] = {name: value for name, value in preset["train"].items() if name != "least_steps"}
    of_table, tables = preset.pop("omics", {}), given.get("omics")
    if isinstance(tables, Mapping):
        preset["omics"] = {name: of_table for name, table in tables.items() if isinstance(table, Mapping)}
    return preset


def _resolve_paths(merged: Mapping[str, Any], base: Path) -> list[str]:
    """Make paths absolute; return a line for each that cannot be one here (~nobody, a loop of links)."""
    problems = []
    tables = merged.get("omics")
    blocks = [(section, merged.get(section), key) for section, key in _PATHS]
    if isinstance(tables, Mapping):
        blocks += [(f"omics.{name}", table, "table") for name, table in tables.items()]
    for section, block, key in blocks:
        if isinstance(block, dict) and isinstance(block.get(key), str | Path) and not _is_url(section, key, block[key]):
            try:
                block[key] = str((base / Path(block[key]).expanduser()).resolve())
            except (RuntimeError, ValueError, OSError) as error:
                problems.append(f"{section}.{key}: {str(block[key])!r} is no path here ({error})")
    return problems


def _is_url(section: str, key: str, value: object) -> bool:
    return (section, key) == ("features", "dir") and isinstance(value, str) and "://" in value


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


def apply_overrides(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Copy a nested mapping and apply "a.b=c"; c is read as YAML: 3, true, null and [a, b] mean what they look like."""
    given = _merge({}, raw)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not all(path.strip().split(".")):
            raise ExperimentError(f"--set {override!r}: expected section.key=value, for example --set train.epochs=20")
        try:
            set_value(given, path.strip(), read_yaml(text))
        except yaml.YAMLError as error:
            raise ExperimentError(f"--set {override!r}: the value is not readable: {error}") from error
    return given


def set_value(given: dict[str, Any], path: str, value: Any) -> None:
    """Set the value of a dotted key, making the sections on its way."""
    keys, block = path.split("."), given
    for key in keys[:-1]:
        below = block.get(key)
        if not isinstance(below, dict):
            below = {}
            block[key] = below
        block = below
    block[keys[-1]] = value


def _explain(error: ValidationError, *, one_table: bool) -> list[str]:
    """Turn pydantic's findings into one line each, in the words of the file."""
    lines = []
    for item in error.errors():
        # The file of one table does not have the table's name, and pydantic marks what is wrong with a name.
        loc = [part for part in item["loc"] if part != "[key]"]
        if one_table and loc[:1] == ["omics"]:
            del loc[1:2]
        place = ".".join(str(part) for part in loc)
        if item["type"] == "extra_forbidden":
            known = _known_keys(loc[:-1])
            near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            lines.append(f"{place}: unknown key; {hint}")
        elif item["type"] == "missing":
            lines.append(f"{place}: missing, and it has no default")
        else:
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{place}: {message} (found {item['input']!r})" if place else message)
    return lines


def _known_keys(location: Sequence[int | str]) -> list[str]:
    section: type[BaseModel] = Experiment
    for part in location:
        field = section.model_fields.get(str(part))
        section = section if field is None else next(_sections(field.annotation), section)
    return list(section.model_fields)


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _sections(argument)
