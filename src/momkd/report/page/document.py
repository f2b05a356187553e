"""What a page is made of, and how it becomes HTML: one file that asks no network for anything.

Texts and cells are plain text and are escaped by the template (``document.html.j2``), which only this module fills.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pandas as pd

from momkd.templates import environment


@dataclass(frozen=True)
class Text:
    """A paragraph; a ``warning`` is set apart."""

    text: str
    tone: Literal["plain", "note", "warning"] = "plain"
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Table:
    """Rows of text under ``heads``; ``numeric`` columns (by position) are set to the right, ``strong`` rows bold."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numeric: frozenset[int] = frozenset()
    strong: frozenset[int] = frozenset()
    kind: str = field(default="table", init=False)

    @classmethod
    def of(cls, frame: pd.DataFrame, caption: str = "", left: int = 1, strong: Sequence[int] = ()) -> Table:
        """The table of a frame of text; all columns but the first ``left`` are numbers."""
        rows = [[str(cell) for cell in row] for row in frame.itertuples(index=False)]
        heads = [str(name) for name in frame.columns]
        return cls(heads, rows, caption, frozenset(range(left, len(heads))), frozenset(strong))


@dataclass(frozen=True)
class Picture:
    """An SVG inside the page; ``alt`` says in words what it shows."""

    svg: bytes
    alt: str
    caption: str = ""
    kind: str = field(default="picture", init=False)

    @property
    def uri(self) -> str:
        """The picture as a data: address."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode("ascii")


@dataclass(frozen=True)
class Fold:
    """Plain text, such as a settings file, that opens on demand; it is not printed."""

    title: str
    text: str
    kind: str = field(default="fold", init=False)


Block = Text | Table | Picture | Fold


@dataclass(frozen=True)
class Section:
    """A heading and what is under it."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """Its place in the address of the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.casefold()).strip("-")


@dataclass(frozen=True)
class Card:
    """A figure that one sees first."""

    value: str
    what: str


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    cards: Sequence[Card]
    sections: Sequence[Section]
    foot: str


def render(page: Page) -> str:
    """The page as HTML; sections without blocks are left out."""
    shown = [section for section in page.sections if section.blocks]
    template = environment("momkd.report.page").get_template("document.html.j2")
    return template.render(page=page, sections=shown) + "\n"


def picture(draw: Callable[[Path], object], alt: str, caption: str = "") -> Picture:
    """What ``draw`` writes to the SVG file that it is given."""
    with TemporaryDirectory() as folder:
        target = Path(folder) / "picture.svg"
        draw(target)
        return Picture(target.read_bytes(), alt, caption)
