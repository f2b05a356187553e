"""What to try next: the tree-structured Parzen estimator of Optuna, shown all trials anew each time.

Nothing is kept between proposals but the trials themselves, so they are the same after a crash.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from momkd.errors import RunError
from momkd.experiment import SearchSpace
from momkd.experiment.search import Axis, Choices
from momkd.study.trials import Trial

# A finite space has repetitions: so many proposals, then so many draws, are tried for a point that was not there.
_PROPOSALS, _DRAWS = 20, 1000


def propose(space: SearchSpace, known: Sequence[Trial], number: int) -> dict[str, Any]:
    """The settings to try next, none of those that were tried; the same for the same trials and number.

    Raises RunError where the space holds no other point.
    """
    tried = [trial.settings for trial in known]
    for settings in _candidates(space, known, number):
        if settings not in tried:
            return settings
    raise RunError(f"no point was found that is not among the {len(tried)} tried: the space is too small")


def _candidates(space: SearchSpace, known: Sequence[Trial], number: int) -> Iterator[dict[str, Any]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    axes = {key: _distribution(axis) for key, axis in space.axes.items()}
    seed = 1000 * space.base.cv.seed + number
    samplers = [(optuna.samplers.TPESampler(seed=seed), _PROPOSALS), (optuna.samplers.RandomSampler(seed=seed), _DRAWS)]
    for sampler, times in samplers:
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials([_as_optuna(trial, known, space, axes) for trial in known if trial.state != "failed"])
        for _ in range(times):
            asked = study.ask(axes)
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
            yield {key: _value(space.axes[key], asked.params[key]) for key in space.axes}


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(axis, Choices):
        # By their places: a value may be a mapping, which Optuna does not take.
        return CategoricalDistribution(list(range(len(axis.values))))
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _value(axis: Axis, drawn: Any) -> Any:
    return axis.values[drawn] if isinstance(axis, Choices) else axis.tidy(drawn)


def _as_optuna(trial: Trial, known: Sequence[Trial], space: SearchSpace, axes: dict[str, Any]) -> Any:
    """A trial as Optuna knows them. One that runs counts as the worst, so that nobody proposes its neighbour."""
    from optuna.trial import TrialState, create_trial

    params = {
        key: axis.values.index(trial.settings[key]) if isinstance(axis, Choices) else trial.settings[key]
        for key, axis in space.axes.items()
    }
    mean = trial.mean()
    if trial.state == "complete" and not math.isnan(mean):
        return create_trial(params=params, distributions=axes, value=mean)
    if trial.state == "stopped":
        steps = {len(trial.scores): mean}
        return create_trial(params=params, distributions=axes, state=TrialState.PRUNED, intermediate_values=steps)
    ended = [other.mean() for other in known if other.state == "complete" and not math.isnan(other.mean())]
    return create_trial(params=params, distributions=axes, value=min(ended, default=0.0))
