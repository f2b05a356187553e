"""What prototypes are called."""

from __future__ import annotations

from collections.abc import Sequence

from momkd.models.outcome import make_outcome
from momkd.student.predictor import StudentCard


def memory_names(card: StudentCard) -> tuple[str, ...]:
    """The name of each codebook: the class, or the bin of a value or a time."""
    count = make_outcome(card.task).n_memories
    return card.classes if len(card.classes) == count else tuple(f"bin {i + 1}" for i in range(count))


def code_names(memories: Sequence[str], k: int) -> list[str]:
    """The names of C · K codes, codebook after codebook: the codebook's, and the code's number in it from 1."""
    return [f"{name} · {i + 1}" for name in memories for i in range(k)]
