"""Files that momkd reads again: JSON, and what is said of one that is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from momkd.errors import DamagedFileError, MomkdError
from momkd.files import read_json, write_json


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", b"\0" * 64, b"[" * 100_000])
def test_damaged_json_is_an_error_of_our_own_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(MomkdError, match=r"metrics\.json: is damaged"):
        read_json(tmp_path / "metrics.json")
    with pytest.raises(ValueError, match=r"is damaged"):
        read_json(tmp_path / "metrics.json")


def test_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    value = {"µ": [1, 2.5, None, True], "words": "→"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert issubclass(DamagedFileError, ValueError)
