"""The pages in a real browser: drawn whole, silent, without a network, fit for a phone and for paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from momkd.report.page import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.mark.parametrize("name", ["", "momkd"])
def test_a_page_is_drawn_whole(browser: Browser, compared: Path, tmp_path: Path, name: str) -> None:
    html = write_report(compared / name, tmp_path / "report.html")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(html.as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [html.as_uri()]
    pictures = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth > 100, i.alt !== ''])")
    assert len(pictures) >= 2
    assert all(all(found) for found in pictures)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 1280, "height": 900})
    page.get_by_role("link", name="Splits").click()
    assert page.url.endswith("#splits")
    assert page.locator("#splits").bounding_box()["y"] < 900  # type: ignore[index]
    page.get_by_text("experiment.yaml, every setting resolved").click()
    assert page.locator("details pre").last.is_visible()
    page.close()


def test_a_page_prints_on_paper(browser: Browser, compared: Path, tmp_path: Path) -> None:
    html = write_report(compared / "momkd", tmp_path / "report.html")
    page = browser.new_page()
    page.goto(html.as_uri())
    page.emulate_media(media="print")
    assert not page.get_by_role("navigation").is_visible()
    # A4 between its margins, at the 96 px per inch of CSS.
    page.set_viewport_size({"width": round((210 - 28) / 25.4 * 96), "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]  # type: ignore[index]
    assert page.pdf(format="A4").count(b"/Type /Page\n") >= 2
    page.close()
