"""The page as a person uses it, in a real browser; what it looks like goes into the documentation on request."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.serve.conftest import Running, serving

from momkd.student import FeatureGeometry

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window whose every complaint fails the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    yield page
    origin = page.url.split("/")[2]
    assert said == []
    assert [url for url in asked if not url.startswith((f"http://{origin}/", "data:", f"blob:http://{origin}/"))] == []
    page.close()


def picture(page: Page, name: str) -> None:
    """Keep a picture of the page where MOMKD_PICTURES says (docs/images for the documentation)."""
    if folder := os.environ.get("MOMKD_PICTURES"):
        page.screenshot(path=Path(folder) / name, **({"quality": 80} if name.endswith("jpg") else {}))


def until(page: Page, script: str, seconds: float = 30) -> None:
    """Wait for a script to be true; Playwright's own waiting needs eval, which the page's policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(script):
        assert time.monotonic() < end, script
        page.wait_for_timeout(50)


def explained(page: Page) -> None:
    page.get_by_role("button", name="Predict and explain").click()
    page.locator("#answer").wait_for(timeout=60_000)
    page.locator("#viewer[data-open=yes]").wait_for()


def painted(page: Page) -> list[int]:
    """How many pixels of the map are drawn, and the sum of their colours."""
    found = page.evaluate(
        """() => { const c = document.querySelector("canvas.map");
        const o = new OffscreenCanvas(c.width, c.height).getContext("2d", {willReadFrequently: true});
        o.drawImage(c, 0, 0); const d = o.getImageData(0, 0, c.width, c.height).data; let n = 0, s = 0;
        for (let i = 0; i < d.length; i += 4) if (d[i + 3]) { n += 1; s += d[i] + 256 * d[i + 1] + d[i + 2]; }
        return [n, s, c.width * c.height]; }"""
    )
    return list(found)


def test_choose_see_toggle_zoom_download(page: Page, service: Running, tmp_path: Path) -> None:
    page.goto(service.address)
    assert page.get_by_role("button", name="Predict and explain").is_disabled()
    page.get_by_label("Slide at hand").fill("A1")
    explained(page)
    assert page.locator("#said").inner_text().startswith("A1 · HER2: ")
    gauge = page.locator("#gauges svg").get_attribute("aria-label")
    assert gauge is not None
    assert gauge.startswith("P(high) 0.")
    assert "Threshold 0.4" in page.locator("#range").inner_text()

    drawn, colours, pixels = painted(page)
    assert drawn == pixels
    page.get_by_label("Shows").select_option("attention")
    assert painted(page)[1] != colours
    page.get_by_label("Shows").select_option(label="low · 1")
    assert "cosine with this prototype" in page.locator("#meaning").inner_text()
    page.get_by_label("Shows").select_option("influence-high")
    assert painted(page) == [drawn, colours, pixels]

    page.get_by_label("speaks for high").uncheck()
    against = painted(page)[0]
    page.get_by_label("speaks for high").check()
    page.get_by_label("speaks for low").uncheck()
    assert 0 < against < drawn
    assert against + painted(page)[0] == drawn
    page.get_by_label("speaks for low").check()

    page.get_by_label("Opacity").fill("30")
    assert page.evaluate("document.querySelector('canvas.map').style.opacity") == "0.3"

    width = page.locator("canvas.map").bounding_box()["width"]  # type: ignore[index]
    page.mouse.move(900, 400)
    page.mouse.wheel(0, -400)
    until(page, f"document.querySelector('canvas.map').getBoundingClientRect().width > {1.1 * width}")
    assert page.locator("#here").inner_text().startswith("patch ")

    for name in ("patches.csv", "patches.geojson", "influence-high.png"):
        with page.expect_download() as coming:
            page.locator("#files").get_by_role("link", name=name, exact=True).click()
        assert coming.value.suggested_filename == f"A1.{name}"
        coming.value.save_as(tmp_path / name)
    assert len(json.loads((tmp_path / "patches.geojson").read_text())["features"]) == 24
    picture(page, "serve_features.png")


def test_top_patches_fly_to_their_place(page: Page, service: Running) -> None:
    page.goto(service.address)
    page.get_by_label("Slide at hand").fill("A1")
    explained(page)
    button = page.get_by_role("button", name="Fly to patch").first
    patch = str(button.get_attribute("aria-label")).split()[3].rstrip(",")
    button.click()
    until(
        page,
        """() => { const f = document.querySelector(".found").getBoundingClientRect();
        const v = document.getElementById("viewer").getBoundingClientRect();
        return f.width > 60 && Math.abs(f.x + f.width / 2 - v.x - v.width / 2) < 3
          && Math.abs(f.y + f.height / 2 - v.y - v.height / 2) < 3; }""",
    )
    assert page.evaluate("document.getElementById('viewer').dataset.patch") == patch


def test_by_keyboard_alone(page: Page, service: Running) -> None:
    page.goto(service.address)
    until(page, "document.querySelectorAll('#slides option').length === 2")
    reached: list[str] = []

    def tab_to(element: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id"))
            if reached[-1] == element:
                return
        raise AssertionError(f"{element} cannot be reached by keyboard: {reached}")

    tab_to("slide")
    page.keyboard.type("A1")
    tab_to("go")
    page.keyboard.press("Enter")
    page.locator("#viewer[data-open=yes]").wait_for(timeout=60_000)
    tab_to("layer")
    page.keyboard.press("ArrowDown")
    assert page.get_by_label("Shows").input_value() != "influence-high"
    tab_to("opacity")
    page.keyboard.press("Home")
    assert page.locator("#opacity-value").inner_text() == "0 %"
    width = page.locator("canvas.map").bounding_box()["width"]  # type: ignore[index]
    page.locator("#viewer .openseadragon-canvas").focus()
    page.keyboard.press("+")
    until(page, f"document.querySelector('canvas.map').getBoundingClientRect().width > {1.05 * width}")


def test_a_file_that_is_sent(page: Page, service: Running, make_features: Callable[..., Path], tmp_path: Path) -> None:
    page.goto(service.address)
    page.locator("#file").set_input_files(make_features(tmp_path, "mine"))
    page.get_by_text("mine.h5: 24 patches of lite").wait_for()
    explained(page)
    assert page.locator("#said").inner_text().startswith("mine · HER2: ")
    assert page.locator("#sent li").count() == 0


def test_a_bad_file_is_refused_in_words(browser: Browser, service: Running, tmp_path: Path) -> None:
    # Chromium itself notes the status of a refusal, so this window is not listened to.
    page = browser.new_page()
    page.goto(service.address)
    (tmp_path / "bad.h5").write_bytes(b"nothing of the kind")
    page.locator("#file").set_input_files(tmp_path / "bad.h5")
    page.get_by_role("alert").get_by_text("its first bytes are not those of a .h5 file").wait_for()
    assert page.get_by_role("button", name="Predict and explain").is_disabled()
    page.close()


def test_it_fits_a_phone(page: Page, service: Running) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(service.address)
    page.get_by_label("Slide at hand").fill("A1")
    explained(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#viewer").bounding_box()["height"] > 300  # type: ignore[index]


def test_the_api_page(page: Page, service: Running) -> None:
    page.goto(f"{service.base}/docs")
    assert page.get_by_role("heading", name="POST /api/predict").is_visible()
    picture(page, "serve_api.png")


def test_a_real_slide(
    page: Page, shared: Path, wsi: None, make_student: Callable[..., Path], tiny_weights: Path, tmp_path: Path
) -> None:
    """A slide without features is extracted, explained, and shown with its own pixels under the map."""
    slides = shared / "data" / "slides"
    student = make_student(tmp_path / "her2", features=FeatureGeometry(64, "test_vit", patch_um=128.0))
    options = ("--slides", slides, "--checkpoint", tiny_weights, "--encoder", "test_vit", "--slide-mpp", 0.5)
    with serving(tmp_path / "work", student, *options) as running:
        page.set_viewport_size({"width": 1280, "height": 1100})
        page.goto(running.address)
        page.get_by_label("Slide at hand").fill("CMU-1-Small-Region")
        explained(page)
        until(page, "document.querySelectorAll('.row img').length > 8")
        until(page, "[...document.querySelectorAll('.row img')].every(i => i.complete && i.naturalWidth === 128)")
        page.wait_for_timeout(1500)
        tissue = page.evaluate(
            """() => { const c = document.querySelector("#viewer canvas:not(.map)");
            const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data; let n = 0;
            for (let i = 0; i < d.length; i += 4) if (d[i + 3] && d[i] - d[i + 1] > 25) n += 1;
            return n / (d.length / 4); }"""
        )
        assert tissue > 0.02
        picture(page, "serve_slide.jpg")
