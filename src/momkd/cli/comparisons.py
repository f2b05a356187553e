"""The verbs over many runs."""

from __future__ import annotations

from pathlib import Path

from momkd.cli.progress import StudyProgress
from momkd.cli.render import console, show_table
from momkd.evaluation.scorers import primary_metric
from momkd.experiment import Experiment
from momkd.parallel import Place
from momkd.report.comparison import draw_forest, draw_roc, paper_table, write_tables
from momkd.report.names import metric_name
from momkd.study.compare import USUAL, choose_methods, compare
from momkd.study.run_folder import RunFolder
from momkd.training.judge import score_words


def do_compare(
    experiment: Experiment, out: Path, methods: str | None, workers: int | None, place: Place | None = None
) -> None:
    """Compare methods with progress bars, write tables and pictures, print the heart of the table."""
    words = USUAL if methods is None else tuple(word.strip() for word in methods.split(",") if word.strip())
    names = choose_methods(words, omics=experiment.omics is not None)
    folds = experiment.cv.folds * experiment.cv.repeats
    with StudyProgress(len(names) * folds, score_words(experiment.task)) as progress:
        found = compare(experiment, names, out, workers=workers, place=place, watch=progress)
    task, main = experiment.task, primary_metric(experiment.task)
    caption = (
        f"{task.label}: {metric_name(main)} and other metrics, mean ± sd of {folds} test folds "
        f"({experiment.cv.folds} folds × {experiment.cv.repeats} repeats). 95 % CI of the mean and of the difference "
        f"from {names[0]}, and p: corrected resampled t (Nadeau and Bengio), uncorrected and by Holm for "
        f"{len(names) - 1} methods. Methods with omics at test are upper bounds."
    )
    files = write_tables(found.table, main, caption, out)
    files.append(draw_forest(found.table, main, f"{task.label} · {folds} test folds", out / "forest.png"))
    if task.binary:
        predictions = {name: RunFolder(out / name).predictions(task) for name in names}
        files.append(draw_roc(predictions, task, task.label, out / "roc.png"))
    shown = paper_table(found.table, main)
    # What a terminal of 80 columns has room for.
    heart = shown[["method", shown.columns[2], "95 % CI", "difference", "p (Holm)"]]
    show_table(heart, f"{task.label}: {folds} test folds", rows=len(names))
    console().print(caption, style="dim", highlight=False)
    written = ", ".join(["table.csv", "table.json", *(path.name for path in files)])
    console().print(f"{out}: {written}; a run for each method", soft_wrap=True, highlight=False)
    console().print(f"one page with all of it: momkd report {out}", soft_wrap=True, highlight=False)
