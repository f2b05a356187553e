"""Reports: one self-contained HTML file about a run or a comparison."""

from momkd.report.page.report import write_report

__all__ = ["write_report"]
