"""The verbs that train, compare, judge, predict and tell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from momkd.cli.options import (
    DeviceOption,
    DevicesOption,
    ExperimentFile,
    FeaturesArgument,
    ForceOption,
    GpusOption,
    ModelArgument,
    NodesOption,
    OnOption,
    Overrides,
    SlideMppOption,
    Workers,
    app,
    load,
)
from momkd.parallel import Place


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the demo cohort and its run go.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Another seed gives another cohort.")] = 0,
    workers: Workers = None,
) -> None:
    """Simulate a small paired cohort, run the whole path on it, and show the results.

    [bold]momkd demo --out demo[/bold]
    """
    from momkd.cli.demo import run_demo

    run_demo(out, seed, workers)


@app.command()
def crossval(
    file: ExperimentFile,
    out: Annotated[Path, typer.Option(help="The run folder; an unfinished run of the same settings goes on.")],
    overrides: Overrides = None,
    workers: Workers = None,
    on: OnOption = "local",
    gpus_per_task: GpusOption = 0.0,
    devices: DevicesOption = 1,
    nodes: NodesOption = 1,
) -> None:
    """Leak-free cross-validation: the main job.

    [bold]momkd crossval E.yaml --out runs/her2 --set cv.repeats=5[/bold]
    """
    from momkd.cli.launch import launch
    from momkd.cli.runs import do_crossval

    if launch(devices, nodes):
        return
    do_crossval(load(file, overrides), out, workers, Place(on, gpus=gpus_per_task))


@app.command()
def compare(
    file: ExperimentFile,
    out: Annotated[Path, typer.Option(help="The comparison's folder; an unfinished one of the same settings goes on.")],
    methods: Annotated[
        str | None,
        typer.Option(help="Comma-separated; the first is what the others are compared with; all = every one."),
    ] = None,
    workers: Workers = None,
    on: OnOption = "local",
    gpus_per_task: GpusOption = 0.0,
    overrides: Overrides = None,
) -> None:
    """Cross-validate several methods on the same folds: one table with statistics, as CSV, Markdown and LaTeX.

    [bold]momkd compare E.yaml --out comparisons/her2[/bold]

    [bold]momkd compare E.yaml --methods momkd,abmil,clam-sb,soft-labels --out comparisons/her2[/bold]
    """
    from momkd.cli.comparisons import do_compare

    do_compare(load(file, overrides), out, methods, workers, Place(on, gpus=gpus_per_task))


@app.command()
def sweep(
    file: ExperimentFile,
    out: Annotated[Path, typer.Option(help="The sweep's folder; an unfinished one goes on, a larger grid adds to it.")],
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="A.B=C,D,E", help="Vary one setting; repeatable. Without it: the file's section sweep."),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option("--search", metavar="N", min=1, help="Try N points of the space instead of the whole grid."),
    ] = None,
    halving: Annotated[
        bool, typer.Option("--halving/--no-halving", help="Of a search: stop poor trials after some folds.")
    ] = True,
    workers: Workers = None,
    on: OnOption = "local",
    gpus_per_task: GpusOption = 0.0,
    show_test: Annotated[
        bool, typer.Option("--show-test", help="Show test scores too; they are not for choosing.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Cross-validate every combination of some settings on the same folds; one table and one figure, by validation.

    [bold]momkd sweep E.yaml --grid model.memory.codes=8,16 --grid train.lr=1e-4,2e-4 --out sweeps/codes[/bold]

    [bold]momkd sweep E.yaml --out sweeps/ablation[/bold] (with a section [bold]sweep:[/bold] in the file)

    [bold]momkd sweep E.yaml --search 40 --grid 'train.lr={from: 1e-4, to: 1e-2, log: true}' --out sweeps/lr[/bold]
    """
    from momkd.cli.sweeps import do_search, do_sweep
    from momkd.experiment import load_search, load_sweep

    place = Place(on, gpus=gpus_per_task)
    if trials is not None:
        space = load_search(file, grid or [], overrides or [])
        do_search(space, out, trials, workers, place, halving=halving, show_test=show_test)
        return
    do_sweep(load_sweep(file, grid or [], overrides or []), out, workers, place, show_test=show_test)


@app.command()
def fit(
    file: ExperimentFile,
    out: Annotated[Path, typer.Option(help="The run folder; an unfinished run of the same settings goes on.")],
    overrides: Overrides = None,
    devices: DevicesOption = 1,
    nodes: NodesOption = 1,
) -> None:
    """Train the model to deploy on all patients; a validation share chooses epoch and threshold, nothing is tested.

    [bold]momkd fit E.yaml --out runs/her2-final[/bold]
    """
    from momkd.cli.launch import launch
    from momkd.cli.runs import do_fit

    if launch(devices, nodes):
        return
    do_fit(load(file, overrides), out)


@app.command()
def evaluate(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    file: Annotated[Path, typer.Argument(metavar="E2.yaml", help="The experiment file of another cohort.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    overrides: Overrides = None,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Accept patients that the run has seen.")
    ] = False,
    allow_other_label: Annotated[
        bool, typer.Option("--allow-other-label", help="Accept that task.label is called otherwise than in the run.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Judge a run on an external cohort, from histology alone; refuses another task and patients that the run has seen.

    [bold]momkd evaluate runs/her2 external.yaml --out runs/her2-external[/bold]
    """
    from momkd.cli.runs import do_evaluate

    experiment = load(file, overrides)
    do_evaluate(
        run_folder, experiment, out, allow_overlap=allow_overlap, allow_other_label=allow_other_label, force=force
    )


@app.command()
def predict(
    model: ModelArgument,
    sources: FeaturesArgument,
    out: Annotated[Path, typer.Option(help="The table of predictions (CSV), one row a slide.")],
    table: Annotated[
        Path | None, typer.Option(help="CSV with patient_id and slide_id: adds a table a patient.")
    ] = None,
    slide_mpp: SlideMppOption = None,
    device: DeviceOption = "cpu",
    force: ForceOption = False,
    on: OnOption = "local",
    gpus_per_task: GpusOption = 0.0,
) -> None:
    """Score slides from histology alone.

    [bold]momkd predict runs/her2 features/ --out scores.csv[/bold]
    """
    from momkd.cli.runs import do_predict

    do_predict(model, sources, out, table, slide_mpp, device, force=force, place=Place(on, gpus=gpus_per_task))


@app.command()
def explain(
    model: ModelArgument,
    sources: FeaturesArgument,
    out: Annotated[Path, typer.Option(help="A folder a slide goes here, and index.html.")],
    slides: Annotated[
        list[Path] | None,
        typer.Option(help="The slides themselves: a file, folder or table; repeat it for more. Needs the extra wsi."),
    ] = None,
    faithfulness: Annotated[
        bool, typer.Option("--faithfulness", help="Measure how true the maps are, by taking patches away.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, max=50, help="Patches in a row of a picture.")] = 8,
    member: Annotated[int, typer.Option(min=0, help="The network whose prototypes are shown.")] = 0,
    patch_size_level0: Annotated[
        float | None, typer.Option(min=1, help="Side of a patch in level-0 pixels, where the files do not say it.")
    ] = None,
    slide_mpp: SlideMppOption = None,
    device: DeviceOption = "cpu",
    force: ForceOption = False,
) -> None:
    """Say why: maps over the slide, patches to look at, a table, objects for QuPath.

    [bold]momkd explain runs/her2 features/ --slides slides/ --out explained/her2[/bold]

    [bold]momkd explain runs/her2/fold-0-0 features/A1.h5 --out explained/A1 --faithfulness[/bold]
    """
    from momkd.cli.explain import do_explain
    from momkd.explain.run import ExplainSettings

    settings = ExplainSettings(patch_size_level0, top, member, faithfulness)
    do_explain(model, sources, out, settings, slides=slides or [], slide_mpp=slide_mpp, device=device, force=force)


@app.command()
def prototypes(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run of momkd with omics.")],
    out: Annotated[Path, typer.Option(help="Tables, pictures and index.html go here.")],
    fold: Annotated[str, typer.Option(help="Whose first member is explained.")] = "fold-0-0",
) -> None:
    """What the memory holds: who uses which prototype, where patients lie, which genes go with each.

    [bold]momkd prototypes runs/her2 --out explained/her2-prototypes[/bold]
    """
    from momkd.cli.explain import do_prototypes

    do_prototypes(run, out, fold)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN|COMPARISON", help="A run, or the folder of a comparison.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file (default: report.html in the folder).")] = None,
) -> None:
    """Tell a run or a comparison in one HTML file that needs no network: cohort, metrics, curves, sites, settings.

    [bold]momkd report runs/her2[/bold]

    [bold]momkd report comparisons/her2 --out her2.html[/bold]
    """
    from momkd.report.page import write_report

    typer.echo(f"{write_report(folder, out)}: open it in a browser")


@app.command()
def reproduce(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    out: Annotated[
        Path | None, typer.Option(help="Where it is done again (default: RUN.again); an unfinished one goes on.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest difference of a prediction that counts as equal.")
    ] = 1e-3,
    workers: Workers = None,
    on: OnOption = "local",
    gpus_per_task: GpusOption = 0.0,
) -> None:
    """Do a run again from what it says of itself, and compare: the same bytes, equal, or different (exit code 1).

    [bold]momkd reproduce runs/her2[/bold]
    """
    from momkd.cli.runs import do_reproduce

    do_reproduce(run, out or run.with_name(f"{run.name}.again"), tolerance, workers, Place(on, gpus=gpus_per_task))


@app.command()
def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="The ONNX file.")],
) -> None:
    """Write a student as one ONNX file: features and edges in, prediction, attention and evidence out.

    [bold]momkd export runs/her2-final --out her2.onnx[/bold]
    """
    from momkd.student.export import export_onnx
    from momkd.study.predict import load_model

    typer.echo(f"{export_onnx(load_model(model).students, out)}: {out.stat().st_size / 1e6:.1f} MB")


@app.command("import-checkpoint")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(metavar="FILE.pt", help="A state dict of the published implementation.")],
    out: Annotated[Path, typer.Option(help="The student folder.")],
    classes: Annotated[
        str, typer.Option(help="Names of the classes, comma-separated, the positive one last.")
    ] = "negative,positive",
    label: Annotated[str, typer.Option(help="What is predicted, for the record.")] = "label",
    k: Annotated[int, typer.Option(min=0, help="Nearest neighbours of the graph it was trained with.")] = 8,
    threshold: Annotated[float, typer.Option(help="Decision threshold on the positive class.")] = 0.5,
    encoder: Annotated[str | None, typer.Option(help="Patch encoder it was trained on, for the record.")] = None,
) -> None:
    """Turn a published MoMKD checkpoint into a student that `momkd predict` can use. No pickle is executed.

    [bold]momkd import-checkpoint best.pt --out student[/bold]
    """
    from momkd.cli.runs import do_import_checkpoint

    names = tuple(name.strip() for name in classes.split(","))
    do_import_checkpoint(file, out, label=label, classes=names, graph_k=k, threshold=threshold, encoder=encoder)
