"""Where tasks are done, and the one door to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

from momkd.errors import ClusterError

T = TypeVar("T")
Watch = Callable[[Any], None]
# (context made once a process, task, watch) → nothing; results are files, or what ``watch`` is told.
Work = Callable[[Any, Any, Watch], None]
_RAY = ("ray", "auto")


@dataclass(frozen=True)
class Place:
    """Where tasks are done.

    ``on``: local (processes of this machine), ray (a Ray of this machine, started for the purpose), auto (the Ray
    cluster that this machine belongs to) or ray://host:port. ``workers``: processes at once, local or of a Ray started
    here (None: from the cores). ``cpus`` and ``gpus``: what Ray sets aside for a task; gpus may be a fraction. Raises
    ClusterError for another place.
    """

    on: str = "local"
    workers: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.on != "local" and self.on not in _RAY and not self.on.startswith("ray://"):
            raise ClusterError(f"--on {self.on}: expected local, ray, auto or ray://host:port")
        if self.cpus <= 0 or self.gpus < 0:
            raise ClusterError(f"--gpus-per-task {self.gpus:g}: expected 0 or more")

    @property
    def ray(self) -> bool:
        """Whether Ray does the tasks."""
        return self.on != "local"


def run_tasks(
    tasks: Sequence[Any], make_context: Callable[[], Any], work: Work, *, place: Place, workers: int, watch: Watch
) -> None:
    """Do every task at a place; locally with ``workers`` processes.

    ``make_context`` is called once a process and must be picklable, as must ``work``, tasks and what ``watch`` is told;
    it may be large. The first error stops everything and is raised here, MomkdError as RunError with its words; so does
    Ctrl-C, and SIGTERM as StopRequested.
    """
    if place.ray:
        from momkd.parallel.on_ray import run_on_ray

        run_on_ray(tasks, make_context, work, place=place, watch=watch)
        return
    from momkd.parallel.local import run_here

    run_here(tasks, make_context, work, workers=workers, watch=watch)


def given(context: T) -> Callable[[], T]:
    """A ``make_context`` for a context that is there already; as picklable as the context."""
    return partial(_itself, context)


def _itself(context: T) -> T:
    return context


def chunks(items: Sequence[T], count: int) -> list[list[T]]:
    """Divide items, in order, into at most ``count`` runs of nearly the same length."""
    count = max(1, min(count, len(items)))
    bounds = [len(items) * i // count for i in range(count + 1)]
    return [list(items[a:b]) for a, b in pairwise(bounds) if b > a]
