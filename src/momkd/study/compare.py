"""Many methods on the same folds: each one an ordinary run, then one table.

DIR/table.csv  table.json  table.md  table.tex  forest.png  roc.png  splits.csv  <method>/ (a run)
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from momkd.errors import ExperimentError
from momkd.evaluation.comparison import compare_methods
from momkd.evaluation.scorers import primary_metric
from momkd.experiment import Experiment
from momkd.files import read_json, write_json
from momkd.models.registry import METHODS
from momkd.parallel import Place
from momkd.study.events import Watcher, ignore
from momkd.study.many import NamedExperiment, try_many
from momkd.study.run_folder import RunFolder, write_csv

# Runs of a method with settings of its own.
WITHOUT_OMICS = "momkd-norna"
# What is compared if nothing is said: the question of the paper, and the two baselines that answer to it.
USUAL = ("momkd", WITHOUT_OMICS, "linear", "abmil", "soft-labels-linear")
# Columns of the table that come from metrics.json, after those of the main metric.
_MEASURED = ("auprc", "f1", "balanced_accuracy", "sensitivity", "specificity", "brier", "ece")


@dataclass(frozen=True)
class Comparison:
    """A finished comparison: its folder, and one row a method."""

    path: Path
    table: pd.DataFrame


def method_names() -> tuple[str, ...]:
    """Every method that can be compared, in the order of the registry."""
    names = list(METHODS)
    names.insert(names.index("momkd") + 1, WITHOUT_OMICS)
    return tuple(names)


def choose_methods(words: Sequence[str], *, omics: bool) -> tuple[str, ...]:
    """The methods that were asked for, ``all`` standing for every one; without omics those that need none.

    Raises ExperimentError naming the nearest method for each name that is none, and methods that need omics where
    there are none.
    """
    known = method_names()
    wanted = [name for word in words for name in (known if word == "all" else (word,))]
    problems = []
    for name in dict.fromkeys(wanted):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
            problems.append(f"no method {name!r}{hint}")
        elif not omics and "all" not in words and _needs_omics(name):
            problems.append(f"method {name} needs omics, and the experiment has none")
    if problems:
        raise ExperimentError("\n".join(problems))
    return tuple(name for name in dict.fromkeys(wanted) if omics or not _needs_omics(name))


def _needs_omics(name: str) -> bool:
    # momkd without omics is its own control, and that has a name of its own.
    return name != WITHOUT_OMICS and METHODS[name].omics != "none"


def experiment_of(name: str, experiment: Experiment) -> Experiment:
    """The experiment of one method: all is as given but the method, and omics for those that use none."""
    method = "momkd" if name == WITHOUT_OMICS else name
    model = experiment.model.model_copy(update={"name": method})
    omics = experiment.omics if _needs_omics(name) else None
    return experiment.model_copy(update={"model": model, "omics": omics})


def compare(
    experiment: Experiment,
    methods: Sequence[str],
    out: Path,
    *,
    workers: int | None = None,
    place: Place | None = None,
    watch: Watcher = ignore,
) -> Comparison:
    """Cross-validate every method on identical folds and compare each with the first; goes on where it stopped.

    All (method, repeat, fold) share one pool of ``workers`` processes, or are done at another ``place``. Raises as
    ``crossval`` and ``choose_methods`` do; a method that fails is reported when the others are done.
    """
    names = choose_methods(methods, omics=experiment.omics is not None)
    runs = [NamedExperiment(name, experiment_of(name, experiment)) for name in names]
    try_many(runs, out, workers=workers, place=place, watch=watch, same_splits=True).raise_failures()
    return tabulate(out, names, experiment)


def tabulate(out: Path, names: Sequence[str], experiment: Experiment) -> Comparison:
    """One row a method, from finished runs in ``out``; writes table.csv."""
    runs = {name: RunFolder(out / name) for name in names}
    predictions = {name: run.predictions(experiment.task) for name, run in runs.items()}
    main = primary_metric(experiment.task)
    table = compare_methods(predictions, names[0], experiment.task)
    for name in _MEASURED:
        if name != main:
            columns = [_measured(runs[method], name) for method in names]
            if any(mean is not None for mean, _ in columns):
                table[f"{name}_mean"] = [mean for mean, _ in columns]
                table[f"{name}_sd"] = [sd for _, sd in columns]
    costs = pd.DataFrame([_costs(run) for run in runs.values()])
    for name in costs.columns:
        table[name] = costs[name].to_numpy()
    table.insert(1, "omics", [_omics_words(name) for name in names])
    write_csv(out / "table.csv", table)
    rows = [{str(key): _plain(value) for key, value in row.items()} for row in table.to_dict("records")]
    write_json(out / "table.json", {"reference": names[0], "metric": main, "methods": rows})
    return Comparison(out, table)


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _measured(run: RunFolder, name: str) -> tuple[float | None, float | None]:
    entry = read_json(run.path / "metrics.json")["test"].get(name, {})
    return entry.get("mean"), entry.get("sd")


def _costs(run: RunFolder) -> Mapping[str, Any]:
    """Parameters of one network, seconds an epoch and milliseconds a slide at inference, means over folds."""
    folds = pd.DataFrame([read_json(run.fold(fold) / "fold.json") for fold in run.done_folds()])
    return {
        "parameters": int(folds["parameters"].median()),
        "seconds_per_epoch": round(float(folds["seconds"].sum() / folds["epochs"].sum()), 4),
        "inference_ms": round(float(folds["inference_ms"].mean()), 3),
    }


def _omics_words(name: str) -> str:
    if not _needs_omics(name):
        return "none"
    return {"train": "training", "test": "training and test"}[METHODS[name].omics]
