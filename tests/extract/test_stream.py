"""Reading ahead: in order, whoever reads; bounded; errors that name the patch."""

from __future__ import annotations

import threading
import time
from typing import Any, NamedTuple

import numpy as np
import pytest

from momkd.errors import ExtractError
from momkd.extract.stream import stream_patches


class Request(NamedTuple):
    x: int
    y: int
    level: int = 0
    width: int = 4
    height: int = 4

    def resize(self, pixels: np.ndarray) -> np.ndarray:
        return pixels


class Reader:
    """Patches whose pixels are their x; every copy counts as one more open reader."""

    def __init__(self) -> None:
        self.shared: dict[str, Any] = {"reads": 0, "threads": set(), "open": 0, "lock": threading.Lock()}

    def get_region(self, x: int, y: int, width: int, height: int, level: int) -> np.ndarray:
        with self.shared["lock"]:
            self.shared["reads"] += 1
            self.shared["threads"].add(threading.current_thread().name)
        time.sleep(0.001 * (x % 3))
        if x == 666:
            raise RuntimeError("bad JPEG")
        if x == 667:
            return np.zeros((2, 4, 3), np.uint8)
        return np.full((height, width, 3), x % 251, np.uint8)

    def detach_reader(self) -> None:
        self.shared["open"] += 1


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_come_in_order(workers: int) -> None:
    reader = Reader()
    found = list(stream_patches(reader, [Request(x, 0) for x in range(70)], 4, batch_size=16, workers=workers))
    assert [len(batch) for batch in found] == [16, 16, 16, 16, 6]
    assert np.concatenate(found)[:, 0, 0, 0].tolist() == list(range(70))
    assert 1 <= len(reader.shared["threads"]) <= workers
    assert reader.shared["open"] == len(reader.shared["threads"])  # every copy was closed


def test_it_reads_a_few_batches_ahead_and_no_more() -> None:
    reader = Reader()
    batches = stream_patches(reader, [Request(3, 0)] * 1000, 4, batch_size=10, workers=2)
    next(batches)
    time.sleep(0.3)
    assert reader.shared["reads"] <= 50
    batches.close()
    time.sleep(0.1)
    assert reader.shared["reads"] <= 50


WRONG = {666: r"patch at \(666, 7\): cannot be read: bad JPEG", 667: r"patch at \(667, 7\): \(2, 4, 3\)"}


@pytest.mark.parametrize("x", WRONG)
def test_a_patch_that_cannot_be_read_is_named(x: int) -> None:
    requests = [Request(1, 1), Request(x, 7), Request(2, 2)]
    with pytest.raises(ExtractError, match=WRONG[x]):
        list(stream_patches(Reader(), requests, 4, batch_size=2, workers=2))
