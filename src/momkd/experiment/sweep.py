"""A sweep, read: which settings vary, and one checked experiment for each combination of them.

    sweep:
      model.memory.codes: [8, 16, 32]           # the grid: every value with every other
      train.lr: [1.0e-4, 2.0e-4]
      points:                                   # settings that vary together, one mapping a point
        - {}
        - {model.memory.update: ema, model.memory.momentum: 0.9}

or, instead of the section, ``--grid model.memory.codes=8,16,32`` on the command line.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from momkd.errors import ExperimentError
from momkd.experiment.load import Experiment, apply_overrides, read_file, read_yaml, set_value, try_build
from momkd.experiment.memory_rules import memory_notes

_POINTS = "points"
# What decides who is divided into folds, how, and what is predicted: scores under other values cannot be compared.
_FIXED, _FREE = ("cohort", "cv", "task"), ("task.bins",)
_LONGEST_NAME = 100
# Floats below it that are whole are written without a point.
_WHOLE = 1e6
_EXAMPLE = "--grid model.memory.codes=8,16,32"

Settings = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """One combination: the name of its run folder, its value of every varied setting, and its experiment."""

    name: str
    settings: Mapping[str, Any]
    experiment: Experiment


@dataclass(frozen=True)
class SweepPlan:
    """The varied settings, as dotted keys, and the points in the order of the grid, the last setting fastest."""

    keys: tuple[str, ...]
    points: tuple[Point, ...]

    @property
    def notes(self) -> list[str]:
        """What a user should know before it runs: settings that change nothing, and at which points."""
        found: dict[str, list[str]] = {}
        for point in self.points:
            for note in memory_notes(point.experiment.model, omics=point.experiment.omics is not None):
                found.setdefault(note, []).append(point.name)
        return [f"{note}{_where(names, len(self.points))}" for note, names in found.items()]


def load_sweep(source: Path, grid: Sequence[str] = (), overrides: Sequence[str] = ()) -> SweepPlan:
    """Read an experiment file and its sweep: ``key=value,value`` of ``grid``, or else the file's ``sweep`` section.

    A value replaces what the file has at its key, as an override ``a.b=c`` does; overrides are applied first. Raises
    ExperimentError listing every problem of every point at once, and settings that a sweep cannot vary.
    """
    raw = read_file(source)
    section = raw.pop("sweep", None)
    problems: list[str] = []
    axes = _axes_of_words(grid, problems) if grid else _axes_of_section(section, problems)
    listed = [key for axis in axes for key in dict.fromkeys(key for part in axis for key in part)]
    check_keys(listed, overrides, problems)
    keys = tuple(dict.fromkeys(listed))
    given = apply_overrides(raw, overrides)
    combinations = [{key: value for part in parts for key, value in part.items()} for parts in itertools.product(*axes)]
    points = _build(given, combinations, keys, Path(source).parent, problems)
    if problems:
        head = f"{source}: {len(problems)} problem{'s' * (len(problems) > 1)} of the sweep:"
        raise ExperimentError("\n".join([head, *(f"  - {problem}" for problem in problems)]))
    return SweepPlan(keys, tuple(points))


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Shorten dotted keys to their last parts, as many as tell them apart."""
    parts = {key: key.split(".") for key in keys}
    short = {}
    for key, own in parts.items():
        others = [other for name, other in parts.items() if name != key]
        length = next((n for n in range(1, len(own)) if all(other[-n:] != own[-n:] for other in others)), len(own))
        short[key] = ".".join(own[-length:])
    return short


def words(value: Any) -> str:
    """Write a setting as the experiment file would, on one line."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _WHOLE else repr(value)
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).removesuffix("\n...\n").strip()


def _axes_of_words(grid: Sequence[str], problems: list[str]) -> list[list[Settings]]:
    axes = []
    for word in grid:
        key, equals, text = word.partition("=")
        try:
            values = read_yaml(f"[{text}]")
        except yaml.YAMLError as error:
            problems.append(f"--grid {word!r}: the values are not readable: {' '.join(str(error).split())}")
            continue
        if not equals or not values:
            problems.append(f"--grid {word!r}: expected section.key=value,value, for example {_EXAMPLE}")
            continue
        axes.append([{key.strip(): value} for value in values])
    return axes


def _axes_of_section(section: Any, problems: list[str]) -> list[list[Settings]]:
    if not isinstance(section, dict) or not section:
        found = "no sweep" if section is None else f"sweep: found {section!r}"
        problems.append(f"{found}; expected a section sweep: {{model.memory.codes: [8, 16, 32]}}, or {_EXAMPLE}")
        return []
    axes = []
    for key, values in section.items():
        if not isinstance(values, list) or not values:
            expected = "a list of values; the key has dots, as in model.memory.codes: [8, 16, 32]"
            expected += ". A range is for --search N" if isinstance(values, dict) and "from" in values else ""
            problems.append(f"sweep.{key}: found {values!r}; expected {expected}")
        elif key != _POINTS:
            axes.append([{str(key): value} for value in values])
        elif all(isinstance(point, dict) for point in values):
            axes.append([{str(name): value for name, value in point.items()} for point in values])
        else:
            wrong = next(point for point in values if not isinstance(point, dict))
            problems.append(f"sweep.points: found {wrong!r}; expected mappings such as {{model.memory.codes: 8}}")
    return axes


def check_keys(listed: Sequence[str], overrides: Sequence[str], problems: list[str]) -> None:
    """Report keys that cannot vary; ``listed``: a key as often as something varies it."""
    count = Counter(listed)
    keys = tuple(count)
    problems += [f"{key}: varied twice" for key in keys if count[key] > 1]
    for key in keys:
        inside = [other for other in keys if other.startswith(f"{key}.")]
        problems += [f"{key} and {other}: the second is a part of the first; vary one of them" for other in inside]
        if not all(key.split(".")):
            problems.append(f"{key!r}: expected section.key, for example model.memory.codes")
        elif key.split(".")[0] in _FIXED and key not in _FREE:
            problems.append(f"{key}: cannot vary, since all points share patients, folds and task; use --set")
        if key in {override.partition("=")[0].strip() for override in overrides}:
            problems.append(f"{key}: both varied and given by --set; leave one out")


def shown_settings(keys: Sequence[str], settings: Mapping[str, Any], experiment: Experiment | None) -> Settings:
    """The value of every varied setting at a point as tables show it: a number or a text."""
    resolved = {} if experiment is None else experiment.model_dump()
    return {key: _shown(key, settings, resolved) for key in keys}


def _build(
    given: Mapping[str, Any],
    combinations: Sequence[Settings],
    keys: Sequence[str],
    base: Path,
    problems: list[str],
) -> list[Point]:
    """Check every combination; what is wrong with several is reported once, with their names."""
    short = short_names(keys)
    points: list[Point] = []
    wrong: dict[str, list[str]] = {}
    for settings in combinations:
        merged = apply_overrides(given, ())
        for key, value in settings.items():
            set_value(merged, key, value)
        experiment, found = try_build(merged, base=base)
        shown = shown_settings(keys, settings, experiment)
        name = _name({short[key]: shown[key] for key in settings})
        for line in found:
            wrong.setdefault(line, []).append(name)
        if experiment is not None:
            points.append(Point(name, shown, experiment))
    for line, names in wrong.items():
        problems.append(f"{line}{_where(names, len(combinations))}")
    problems += _same(points)
    return _told_apart(points)


def _where(names: Sequence[str], of: int) -> str:
    """Say which points a finding is about, if not all."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return "" if len(names) == of else f" [at {' | '.join(names[:3])}{more}]"


def _shown(key: str, settings: Mapping[str, Any], resolved: Mapping[str, Any]) -> Any:
    """The value of a setting at a point as tables show it: a number or a text."""
    value: Any = resolved
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if key in settings and not isinstance(value, int | float):
        value = settings[key]
    return value if isinstance(value, int | float) and not isinstance(value, bool) else words(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _name(settings: Mapping[str, Any]) -> str:
    """A folder name that says what is special about a point: codes=8,update=ema."""
    if not settings:
        return "base"
    whole = ",".join(f"{key}={words(value)}" for key, value in settings.items())
    name = re.sub(r"[^\w.,=+-]+", "-", whole)
    return name if name == whole and len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 9]}-{_digest(whole)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:8]


def _told_apart(points: Sequence[Point]) -> list[Point]:
    """Names that differ in no more than upper and lower case are one folder on some systems."""
    count = Counter(point.name.casefold() for point in points)
    return [
        point if count[point.name.casefold()] == 1 else replace(point, name=f"{point.name}-{_digest(point.name)}")
        for point in points
    ]


def _same(points: Sequence[Point]) -> Iterator[str]:
    """Points that are the same experiment, though they may be written differently."""
    seen: dict[str, int] = {}
    for number, point in enumerate(points):
        first = seen.setdefault(json.dumps(point.experiment.model_dump(mode="json"), sort_keys=True), number)
        if first != number:
            yield f"points {first + 1} ({points[first].name}) and {number + 1} ({point.name}) are the same experiment"
