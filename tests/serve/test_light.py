"""The web side holds no networks: it starts fast, stays small, and what a bad file breaks is another process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.resources import files


def test_the_web_side_does_without_torch() -> None:
    code = "import sys, momkd.serve.app; print(sorted({'torch', 'h5py', 'matplotlib', 'pandas'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_viewer_is_the_one_that_was_taken_from_npm() -> None:
    viewer = files("momkd.serve") / "static" / "openseadragon.min.js"
    assert hashlib.sha256(viewer.read_bytes()).hexdigest() == (
        "14d587cd3ee7c4861f1a41077ce642029364a21029956ba635bd8fb1202cf9ad"
    )
    assert (files("momkd.serve") / "static" / "openseadragon.LICENSE.txt").is_file()
