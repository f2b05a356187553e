"""The errors of this floor, and the check that its extra is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from momkd.errors import ExtractError, Problem

_NEEDED = ("lazyslide", "wsidata", "openslide", "timm", "huggingface_hub")


def fault(subject: Path | str, found: str, expected: str = "", mend: str = "") -> ExtractError:
    """Make the error of one slide, encoder or option; its only argument is a Problem."""
    return ExtractError(Problem(str(subject), found, expected, mend))


def require_extra() -> None:
    """Raise ExtractError, naming the command that installs it, where the extra ``wsi`` is not installed."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        found = f"{', '.join(missing)} not installed"
        raise fault("momkd extract", found, "the extra wsi", "pip install 'momkd[wsi]'")
