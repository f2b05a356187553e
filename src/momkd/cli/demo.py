"""``momkd demo``: the whole path on a cohort whose truth is known."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from momkd.cli.render import console, show_check
from momkd.cli.runs import do_crossval, do_evaluate
from momkd.cohort.check import check
from momkd.errors import RunError
from momkd.experiment import load_experiment
from momkd.files import read_json, write_json
from momkd.report.page import write_report
from momkd.simulator import SimulationSettings, simulate

# Small enough for two cores and three minutes, and easier than the default: the point is to see the whole path work.
DEMO = SimulationSettings(patients=180, external_patients=80, patches=128, visibility=0.9, foci_share=0.4, signal=5.0)


def run_demo(out: Path, seed: int, workers: int | None, size: SimulationSettings = DEMO) -> None:
    """Simulate, check, cross-validate with and without RNA, judge on external sites.

    A finished step is not done again.
    """
    started = time.monotonic()
    say = console().print
    settings = replace(size, seed=seed)
    cohort, marker = out / "cohort", out / "demo.json"
    if out.is_dir() and any(out.iterdir()) and not marker.is_file():
        raise RunError(f"{out}: exists, is not empty and is not a demo; give another --out")
    if marker.is_file() and read_json(marker) != {"seed": seed}:
        raise RunError(f"{out}: holds the demo of another seed; give another --out or delete it")
    say(f"[bold]1 · simulate[/] {settings.patients} patients with slides and RNA, and an external cohort → {cohort}")
    write_json(marker, {"seed": seed})
    if not (cohort / "simulation.json").is_file():  # written last
        shutil.rmtree(cohort, ignore_errors=True)
        simulate(settings, cohort)
    experiment = load_experiment(cohort / "experiment.yaml")
    external = load_experiment(cohort / "external" / "experiment.yaml")

    say("\n[bold]2 · check[/] the cohort")
    show_check(check(experiment))
    say("\n[bold]3 · cross-validate[/] with RNA as privileged teacher")
    with_rna = do_crossval(experiment, out / "with-rna", workers)
    say("\n[bold]4 · the control:[/] the same student without RNA")
    without = do_crossval(experiment.model_copy(update={"omics": None}), out / "without-rna", workers)
    say("\n[bold]5 · external sites,[/] never seen, stronger stain shift, histology alone")
    shutil.rmtree(out / "external", ignore_errors=True)
    outside = do_evaluate(out / "with-rna", external, out / "external")

    def auc(metrics: dict[str, object]) -> str:
        return f"{metrics['test']['auc']['pooled']:.3f}"  # type: ignore[index]

    say(
        f"\n[bold]test AUC (pooled)[/]  with RNA {auc(with_rna.metrics)} · without {auc(without.metrics)} · "
        f"external {auc(outside.metrics)} · {time.monotonic() - started:.0f} s"
    )
    reports = [str(write_report(out / name)) for name in ("with-rna", "external")]
    say(f"reports, to open in a browser: {', '.join(reports)}", soft_wrap=True)
