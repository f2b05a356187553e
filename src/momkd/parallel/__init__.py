"""Tasks over processes: of this machine, or of a Ray cluster. Where a task is done changes no result."""

from momkd.parallel.place import Place, Work, chunks, given, run_tasks

__all__ = ["Place", "Work", "chunks", "given", "run_tasks"]
