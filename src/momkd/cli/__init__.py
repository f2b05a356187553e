"""The command line: verbs and pages, no logic. Heavy imports happen inside the verb that needs them."""

from __future__ import annotations


def main() -> None:
    """Entry point of the ``momkd`` command."""
    import os
    import sys

    # Read when torch is imported, here and in worker processes: threads that wait for one another sleep instead of
    # spinning. Where cores are shared with other work, spinning costs more than it saves.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from momkd.cli.app import run

    sys.exit(run())
