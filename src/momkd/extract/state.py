"""What an extraction folder remembers: its settings, and one state a slide.

    OUT/<slide>.h5  extract.json  states/<slide>.json  tiling/<slide>.jpg  summary.md

Nothing in it says when or how fast, so that an interrupted and continued folder equals an uninterrupted one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from momkd.errors import ExtractError, FeatureFileError, Problem
from momkd.extract.sources import Slide
from momkd.files import read_json, sha256_file, write_json
from momkd.slides.readers import bag_digest, read_bag
from momkd.slides.writer import read_notes

Status = Literal["pending", "done", "failed"]
SETTINGS, STATES, PICTURES, SUMMARY = "extract.json", "states", "tiling", "summary.md"


@dataclass(frozen=True)
class SlideState:
    """What became of one slide; ``size`` and ``mtime_ns`` are those of its file, to know it again without reading."""

    slide_id: str
    file: str
    status: Status
    reason: str = ""
    patches: int = 0
    tissue_mm2: float | None = None
    mpp: float | None = None
    mpp_from: str = ""
    size: int = 0
    mtime_ns: int = 0


class ExtractFolder:
    """Names, reads and writes the files of one extraction."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def features(self, slide_id: str) -> Path:
        """The feature file of a slide."""
        return self.path / f"{slide_id}.h5"

    def picture(self, slide_id: str) -> Path:
        """The picture of a slide's patches."""
        return self.path / PICTURES / f"{slide_id}.jpg"

    def lock(self, slide_id: str) -> Path:
        """The lock file of a slide; it is there while somebody works on it."""
        return self.path / STATES / f".{slide_id}.lock"

    def prepare(self, identity: Mapping[str, Any]) -> None:
        """Make the folder, or agree to go on with it.

        Raises ExtractError where it was made with other settings: they would be mixed, or days of work replaced.
        """
        file = self.path / SETTINGS
        if not file.is_file():
            write_json(file, dict(identity))
            return
        before = read_json(file)
        changed = [
            f"{name}: {before.get(name)!r} then, {identity.get(name)!r} now"
            for name in {**before, **identity}
            if before.get(name) != identity.get(name)
        ]
        if changed:
            found = f"was made with other settings ({'; '.join(changed)})"
            raise ExtractError(Problem(str(self.path), found, "the same", "give another --out, or those settings"))

    def read(self, slide_id: str) -> SlideState | None:
        """Return the state of a slide; None where there is none, or a file that is no state."""
        try:
            return SlideState(**read_json(self._state(slide_id)))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, state: SlideState) -> None:
        """Write the state of a slide, unless it is there as it is."""
        if self.read(state.slide_id) != state:
            write_json(self._state(state.slide_id), asdict(state))

    def is_current(self, slide: Slide, settings: str, slide_mpp: float | None) -> tuple[bool, str]:
        """Whether a slide's feature file is whole, made of this very file with these settings; and if not, why.

        The reason is empty where there is no file yet. A slide whose size and time are as they were is taken for the
        same; otherwise its SHA-256 decides.
        """
        target = self.features(slide.slide_id)
        if not target.exists():
            return False, ""
        try:
            notes, bag = read_notes(target), read_bag(target)
        except FeatureFileError:
            return False, "its feature file was incomplete or damaged"
        if notes.get("content_sha256") != bag_digest(bag):
            return False, "its feature file was incomplete or damaged"
        if notes.get("settings") != settings:
            return False, "its feature file was made with other settings"
        state = self.read(slide.slide_id)
        if state is None or state.status != "done":
            state = None
        if not _same_mpp(slide, slide_mpp, bag.mpp, state):
            return False, "its µm per pixel changed"
        stat = slide.path.stat()
        if state is not None and (state.size, state.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return True, ""
        same = notes.get("source_sha256") == sha256_file(slide.path)
        return same and state is not None, "" if same else "the slide's file changed"

    def _state(self, slide_id: str) -> Path:
        return self.path / STATES / f"{slide_id}.json"


def settings_text(identity: Mapping[str, Any]) -> str:
    """Return settings as they are stored in a feature file."""
    return json.dumps(dict(identity), sort_keys=True)


def _same_mpp(slide: Slide, given: float | None, made_with: float | None, state: SlideState | None) -> bool:
    """Whether a slide would be given the µm per pixel again that its features were made with.

    Its own metadata are taken to say what they said; a number from a table or the option may have changed.
    """
    if slide.mpp is not None:
        return made_with == slide.mpp
    if state is None or state.mpp_from != "--slide-mpp" or given is None:
        return state is None or state.mpp_from != "table"
    return made_with == given
