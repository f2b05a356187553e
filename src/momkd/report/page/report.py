"""``momkd report``: what a folder is, and its page."""

from __future__ import annotations

from pathlib import Path

from momkd.errors import RunError
from momkd.files import write_text
from momkd.report.page.comparison import comparison_page
from momkd.report.page.document import render
from momkd.report.page.run import run_page
from momkd.study.run_folder import RunFolder


def write_report(path: Path, out: Path | None = None) -> Path:
    """Write one self-contained HTML file about a run or a comparison, by default ``path``/report.html; return it.

    Raises RunError for another folder, and for a run or comparison that is not finished.
    """
    folder = RunFolder(path)
    if (folder.path / "table.json").is_file():
        page = comparison_page(folder)
    elif (folder.path / "experiment.yaml").is_file():
        page = run_page(folder)
    else:
        raise RunError(
            f"{path}: neither a run nor a finished comparison; expected the --out folder of `momkd crossval`, `fit`, "
            "`evaluate` or `compare`"
        )
    target = folder.path / "report.html" if out is None else out
    write_text(target, render(page))
    return target
