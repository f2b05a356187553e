"""The space of a search, read: which settings vary, between which values, and the experiment at any point of it.

    sweep:
      model.memory.codes: [8, 16, 32]                       # one of these
      train.lr: {from: 1.0e-4, to: 1.0e-2, log: true}       # a number between; whole numbers stay whole

or, instead of the section, ``--grid model.memory.codes=8,16,32 --grid 'train.lr={from: 1e-4, to: 1e-2, log: true}'``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from momkd.errors import ExperimentError
from momkd.experiment.load import Experiment, apply_overrides, read_file, read_yaml, set_value, try_build
from momkd.experiment.sweep import Point, Settings, check_keys, shown_settings

_EXAMPLE = "--grid 'train.lr={from: 1e-4, to: 1e-2, log: true}'"
_RANGE_KEYS = {"from", "to", "log"}


@dataclass(frozen=True)
class Choices:
    """One of some values, in no order."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A number from ``low`` to ``high``, both included; whole where both are; ``log``: evenly by its logarithm."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def tidy(self, value: float) -> float:
        """The value with three significant digits, within the range: what is told is what was trained."""
        return value if self.whole else min(max(float(f"{value:.3g}"), self.low), self.high)


Axis = Choices | Range


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """The varied settings by dotted key, and the experiment that they vary: ``base``, as the file has it."""

    axes: Mapping[str, Axis]
    base: Experiment
    given: Mapping[str, Any]
    folder: Path

    @property
    def keys(self) -> tuple[str, ...]:
        """The dotted keys in the order of the file."""
        return tuple(self.axes)

    @property
    def size(self) -> float:
        """How many points there are; infinite where a number is not whole."""
        return math.prod(_size(axis) for axis in self.axes.values())

    @property
    def digest(self) -> str:
        """Hex SHA-256 of everything that decides what a point is."""
        axes = {key: {type(axis).__name__: asdict(axis)} for key, axis in self.axes.items()}
        whole = {"axes": axes, "base": self.base.model_dump(mode="json")}
        return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()

    def point(self, name: str, settings: Mapping[str, Any]) -> Point:
        """The experiment with these settings. Raises ExperimentError where they contradict each other."""
        experiment, problems = _built(self.given, settings, self.folder)
        if experiment is None:
            raise ExperimentError(f"{name}: {'; '.join(problems)}")
        return Point(name, shown_settings(self.keys, settings, experiment), experiment)


def load_search(source: Path, grid: Sequence[str] = (), overrides: Sequence[str] = ()) -> SearchSpace:
    """Read an experiment file and the space of its search: ``key=…`` words of ``grid``, or else its ``sweep`` section.

    Each choice and both ends of each range are tried by themselves. Raises ExperimentError listing every problem at
    once; what only certain combinations contradict is found when they are tried.
    """
    raw = read_file(source)
    section = raw.pop("sweep", None)
    problems: list[str] = []
    axes = _axes_of_words(grid, problems) if grid else _axes_of_section(section, problems)
    check_keys(list(axes), overrides, problems)
    given, folder = apply_overrides(raw, overrides), Path(source).parent
    base, wrong = try_build(given, base=folder)
    problems += wrong
    if base is not None:
        problems += dict.fromkeys(line for key, axis in axes.items() for line in _alone(given, key, axis, folder))
    if problems or base is None:
        head = f"{source}: {len(problems)} problem{'s' * (len(problems) > 1)} of the search:"
        raise ExperimentError("\n".join([head, *(f"  - {problem}" for problem in problems)]))
    return SearchSpace(axes, base, given, folder)


def _built(given: Mapping[str, Any], settings: Mapping[str, Any], folder: Path) -> tuple[Experiment | None, list[str]]:
    merged = apply_overrides(given, ())
    for key, value in settings.items():
        set_value(merged, key, value)
    return try_build(merged, base=folder)


def _alone(given: Mapping[str, Any], key: str, axis: Axis, folder: Path) -> list[str]:
    values = axis.values if isinstance(axis, Choices) else (axis.low, axis.high)
    return [line for value in values for line in _built(given, {key: value}, folder)[1]]


def _size(axis: Axis) -> float:
    if isinstance(axis, Choices):
        return len(axis.values)
    return axis.high - axis.low + 1 if axis.whole else math.inf


def _axes_of_words(grid: Sequence[str], problems: list[str]) -> dict[str, Axis]:
    axes: dict[str, Axis] = {}
    for word in grid:
        key, equals, text = word.partition("=")
        try:
            values = read_yaml(f"[{text}]") if equals else []
        except yaml.YAMLError as error:
            problems.append(f"--grid {word!r}: the values are not readable: {' '.join(str(error).split())}")
            continue
        if not values:
            problems.append(f"--grid {word!r}: expected section.key=value,value or a range, for example {_EXAMPLE}")
        elif key.strip() in axes:
            problems.append(f"{key.strip()}: varied twice")
        else:
            is_range = len(values) == 1 and isinstance(values[0], Mapping) and "from" in values[0]
            axes |= _axis(key.strip(), values[0] if is_range else values, problems)
    return axes


def _axes_of_section(section: Any, problems: list[str]) -> dict[str, Axis]:
    if not isinstance(section, dict) or not section:
        found = "no sweep" if section is None else f"sweep: found {section!r}"
        problems.append(f"{found}; expected a section sweep: {{model.memory.codes: [8, 16, 32]}}, or {_EXAMPLE}")
        return {}
    axes: dict[str, Axis] = {}
    for key, values in section.items():
        if key == "points":
            problems.append("sweep.points: settings that vary together are for a grid; leave them out, or --search")
        else:
            axes |= _axis(str(key), values, problems)
    return axes


def _axis(key: str, values: Any, problems: list[str]) -> Settings:
    """{key: its axis}, or nothing and a problem."""
    if isinstance(values, list) and values:
        return {key: Choices(tuple(values))}
    found = _range(values) if isinstance(values, Mapping) else None
    if found is not None:
        return {key: found}
    expected = "a list of values, or {from: 1.0e-4, to: 1.0e-2, log: true} with from < to (and 0 < from with log)"
    problems.append(f"{key}: found {values!r}; expected {expected}")
    return {}


def _range(values: Mapping[str, Any]) -> Range | None:
    if not {"from", "to"} <= set(values) <= _RANGE_KEYS or values.get("log", False) not in (True, False):
        return None
    low, high = _number(values["from"]), _number(values["to"])
    log = bool(values.get("log", False))
    if low is None or high is None or low >= high or (log and low <= 0):
        return None
    whole = isinstance(low, int) and isinstance(high, int)
    return Range(low, high, log) if whole else Range(float(low), float(high), log)


def _number(value: Any) -> float | None:
    """A finite number; YAML takes 1e-4, without a point, for a word."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None
