"""Pages that must keep up with the code."""

from __future__ import annotations

from pathlib import Path

from momkd.study.compare import method_names

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_every_method_is_on_the_page_of_comparisons() -> None:
    page = (DOCS / "comparison.md").read_text(encoding="utf-8")
    assert [name for name in method_names() if f"| `{name}` |" not in page] == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in DOCS.glob("*.md") if f": {page.name}" not in navigation] == []
