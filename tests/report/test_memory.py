"""The picture of the memory: drawn where a history says anything of one, with a mean over folds and members."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from momkd.experiment import TaskSettings
from momkd.report import memory
from momkd.report.curves import draw_run
from momkd.report.memory import draw_memory, has_memory

CLASSES = ("negative", "positive")


def history(epochs: int, level: float = 0.5, members: int = 1, **other: object) -> pd.DataFrame:
    """A history whose memory columns are all ``level`` times the epoch, of one member or more."""
    epoch = np.arange(1.0, epochs + 1)
    names = ["drift", "within_cosine", "across_cosine", "attention_entropy"]
    names += [f"{name}_{label}" for name in ("perplexity", "active") for label in (0, 1)]
    names += [f"{name}_{origin}" for name in ("margin", "auc") for origin in ("rna", "slide")]
    frame = pd.DataFrame({"epoch": epoch, "loss_total": 1.0, "val_auc": 0.7, "temperature": 0.2})
    frame = frame.assign(**{f"memory_{name}": level * epoch for name in names}, **other)
    if members == 1:
        return frame
    tables = [frame.assign(**{name: frame[name] + m for name in frame if "memory" in name}) for m in range(members)]
    return pd.concat([table.assign(member=m) for m, table in enumerate(tables)], ignore_index=True)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figure last saved, to look into."""
    kept: dict[str, Figure] = {}
    real = memory.save

    def keep(figure: Figure, target: Path) -> Path:
        kept["figure"] = figure
        return real(figure, target)

    monkeypatch.setattr(memory, "save", keep)
    return kept


def panels(figure: Figure) -> dict[str, dict[str, list[float]]]:
    """The bold lines by panel and label."""
    return {
        axes.get_title(): {str(line.get_label()): list(line.get_ydata()) for line in axes.lines if line.get_lw() > 1}
        for axes in figure.axes
        if axes.lines
    }


def test_every_diagnostic_has_its_panel(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    draw_memory([history(3)], CLASSES, tmp_path / "memory.png")
    found = {title: set(lines) for title, lines in panels(drawn["figure"]).items()}
    assert found == {
        "usage perplexity (codes)": {"negative", "positive"},
        "active codes": {"negative", "positive"},
        "drift from the start (1 − cos)": {"mean"},
        "mean cosine of codes": {"within a class", "across classes"},
        "share of margins met": {"RNA", "slides"},
        "AUC of Δ, training patients": {"RNA", "slides"},
        "attention entropy / ln P": {"mean"},
        "temperature τ": {"mean"},
    }


def test_the_mean_is_over_folds_and_members(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    draw_memory([history(2, 0.5, members=2), history(2, 0.1)], CLASSES, tmp_path / "memory.png")
    axes = next(axes for axes in drawn["figure"].axes if axes.get_title().startswith("drift"))
    faint = sorted(list(line.get_ydata()) for line in axes.lines if line.get_lw() < 1)
    assert faint == [[0.1, 0.2], [0.5, 1.0], [1.5, 2.0]]
    assert panels(drawn["figure"])[axes.get_title()]["mean"] == pytest.approx([0.7, 3.2 / 3])


def test_the_mean_ends_where_fewer_than_half_of_the_fits_go_on(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    draw_memory([history(2), history(4), history(6), history(6)], CLASSES, tmp_path / "memory.png")
    mean = panels(drawn["figure"])["drift from the start (1 − cos)"]["mean"]
    assert mean == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
    draw_memory([history(2), history(4), history(6)], CLASSES, tmp_path / "memory.png")
    assert len(panels(drawn["figure"])["drift from the start (1 − cos)"]["mean"]) == 4


def test_epochs_before_a_memory_and_columns_nobody_has_are_left_out(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    late = history(4).drop(columns=["memory_auc_rna", "memory_auc_slide", "memory_margin_rna"])
    late.loc[:1, [name for name in late if "memory" in name]] = np.nan
    draw_memory([late], CLASSES, tmp_path / "memory.png")
    found = panels(drawn["figure"])
    assert found["drift from the start (1 − cos)"]["mean"] == [1.5, 2.0]
    assert set(found["share of margins met"]) == {"slides"}
    assert "AUC of Δ, training patients" not in found


def test_codebooks_without_class_names_are_numbered(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    draw_memory([history(2, memory_active_2=1.0)], (), tmp_path / "memory.png")
    assert set(panels(drawn["figure"])["active codes"]) == {"codebook 1", "codebook 2", "codebook 3"}


def test_one_epoch_is_a_dot(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    draw_memory([history(1)], CLASSES, tmp_path / "memory.png")
    assert panels(drawn["figure"])["drift from the start (1 − cos)"]["mean"] == [0.5]


def test_a_run_gets_the_picture_where_it_has_a_memory(tmp_path: Path) -> None:
    predictions = pd.DataFrame({"repeat": 0, "fold": 0, "role": "test", "patient_id": ["a", "b"], "label": CLASSES})
    predictions = predictions.assign(prob_negative=[0.8, 0.4], prob_positive=[0.2, 0.6])
    predictions.to_csv(tmp_path / "predictions.csv", index=False)
    task, folder = TaskSettings(label="HER2", classes=CLASSES), tmp_path / "fold-0-0"
    folder.mkdir()
    plain = history(2)[["epoch", "loss_total", "val_auc", "temperature"]]
    assert not has_memory([plain])
    plain.to_csv(folder / "history.csv", index=False)
    assert [path.name for path in draw_run(tmp_path, task)] == ["curves.png", "calibration.png", "learning.png"]
    history(2, members=2).to_csv(folder / "history.csv", index=False)
    drawn = draw_run(tmp_path, task)
    assert [path.name for path in drawn] == ["curves.png", "learning.png", "memory.png"]
    first = [path.read_bytes() for path in drawn]
    assert first[-1].startswith(b"\x89PNG")
    assert [path.read_bytes() for path in draw_run(tmp_path, task)] == first
