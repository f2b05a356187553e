"""Pages from plain blocks: escaped, whole, in need of nothing from outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from momkd.report.figures import save
from momkd.report.page.document import Card, Fold, Page, Section, Table, Text, picture, render
from momkd.report.words import count, interval, mean_sd, number, spread_of

_NASTY = "<script>alert('x')</script> & \"quotes\""


class _Balance(HTMLParser):
    """Collects tags, and fails where one closes that is not open."""

    _VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _draw(target: Path) -> object:
    figure = Figure()
    figure.subplots().plot([0, 1], [1, 0])
    return save(figure, target)


def _page(*sections: Section) -> Page:
    return Page("title " + _NASTY, "subtitle", [Card("0.8", _NASTY)], sections, "foot")


def test_whatever_the_data_say_stays_text() -> None:
    page = _page(
        Section(
            "One & two",
            [
                Text(_NASTY, "warning"),
                Table([_NASTY, "n"], [[_NASTY, "1"]], _NASTY, frozenset({1})),
                Fold(_NASTY, _NASTY),
                picture(_draw, _NASTY, _NASTY),
            ],
        )
    )
    found = _Balance()
    found.feed(render(page))
    assert found.open == []
    assert "script" not in found.seen
    assert sum(_NASTY in text for text in found.text) >= 7


def test_a_page_names_no_address_outside_itself() -> None:
    html = render(_page(Section("S", [picture(_draw, "a line")])))
    assert re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", html) == []
    assert "default-src 'none'" in html


def test_sections_without_blocks_are_left_out_and_the_others_are_reached_by_name() -> None:
    html = render(_page(Section("Empty", []), Section("Settings and versions", [Text("x")])))
    assert "Empty" not in html
    assert 'href="#settings-and-versions"' in html
    assert 'id="settings-and-versions"' in html


def test_a_picture_has_the_same_bytes_every_time() -> None:
    assert picture(_draw, "a").svg == picture(_draw, "a").svg


def test_tables_of_frames() -> None:
    table = Table.of(pd.DataFrame({"a": ["x"], "b": ["1"], "c": ["2"]}), left=2)
    assert table.numeric == {2}
    assert table.rows == [["x", "1", "2"]]


def test_numbers_in_words() -> None:
    assert number(0.12345) == "0.123"
    assert number(123456.7) == "1.2346e+05"
    assert number(None) == number(np.nan) == "–"
    assert mean_sd(0.5, None) == "0.500"
    assert mean_sd(0.5, 0.1) == "0.500 ± 0.100"
    assert interval(0.1, None) == interval(np.nan, 0.2) == "–"
    assert interval(0.1, 0.25) == "0.100 – 0.250"
    assert count(1234567) == "1 234 567"
    assert spread_of(pd.Series([3.0, 1.0, 2.0])) == "1 – 2 – 3"
