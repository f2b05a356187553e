"""The command line: verbs and pages, no logic. Heavy imports happen inside the verb that needs them."""

from __future__ import annotations


def main() -> None:
    """Entry point of the ``momkd`` command."""
    import sys

    from momkd.cli.app import run

    sys.exit(run())
