"""Running ahead changes who computes, and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from momkd.training.prefetch import ahead


def threads() -> int:
    return sum(thread.name == "momkd-prefetch" for thread in threading.enumerate())


def test_order_and_contents() -> None:
    assert list(ahead(iter(range(50)), 3)) == list(range(50))
    assert list(ahead(iter([]))) == []
    assert threads() == 0


def test_it_runs_ahead_but_not_far() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(20):
            made.append(i)
            yield i

    running = ahead(items(), 2)
    assert next(running) == 0
    for _ in range(200):
        if len(made) == 4:
            break
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 4, "one taken, two waiting, one in hand"
    running.close()
    assert threads() == 0


def test_an_error_comes_at_its_place_in_the_order() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("slide-7: gone")

    running = ahead(items())
    assert [next(running), next(running)] == [1, 2]
    with pytest.raises(OSError, match="slide-7: gone"):
        next(running)
    assert threads() == 0


def test_the_thread_ends_with_its_consumer() -> None:
    def endless() -> Iterator[int]:
        i = 0
        while True:
            yield i
            i += 1

    for item in ahead(endless()):
        if item == 3:
            break
    running = ahead(endless())
    next(running)
    with pytest.raises(KeyboardInterrupt):
        running.throw(KeyboardInterrupt)
    assert threads() == 0


def test_depth() -> None:
    with pytest.raises(ValueError, match="depth is 0"):
        next(ahead(iter([1]), 0))
