"""The ``momkd`` command: every verb, its options, its examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from momkd.errors import MomkdError

app = typer.Typer(
    name="momkd",
    help="Train on slides and RNA. Predict from the slide alone.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ExperimentFile = Annotated[Path, typer.Argument(help="The experiment file (YAML).", metavar="E.yaml")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one setting; repeatable.")
]
SlideMppOption = Annotated[
    str | None,
    typer.Option(
        "--slide-mpp", metavar="MPP|CSV", help="µm per level-0 pixel where files lack it; or a CSV: slide_id, mpp."
    ),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes that share the folds (default: from the cores)")]


_INTERRUPTED = 130
# Typer brings its own copy of click or uses an installed one, by version; both hang the error of wrong usage here.
_UsageError: type[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 = done, 1 = a reported problem, 2 = wrong usage, 130 = interrupted."""
    try:
        code = app(args=None if arguments is None else list(arguments), standalone_mode=False)
    except MomkdError as error:
        return _report(str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except _UsageError as error:
        error.show()
        return int(error.exit_code)
    except BrokenPipeError:
        return 1
    except OSError as error:
        return _report(f"{error.filename or 'a file'}: {error.strerror or error}")
    # Some versions of typer turn Ctrl-C into this code themselves.
    if code == _INTERRUPTED:
        return _report("interrupted; run the same command again to go on", code=_INTERRUPTED)
    return code if isinstance(code, int) else 0


def _report(message: str, code: int = 1) -> int:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), message))
    return code


def _load(path: Path, overrides: list[str] | None) -> Any:
    from momkd.experiment import load_experiment

    return load_experiment(path, overrides or [])


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"momkd {installed('momkd')}")
        raise typer.Exit


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
def init(
    file: Annotated[Path, typer.Argument(help="Where the template goes.")] = Path("experiment.yaml"),
) -> None:
    """Write a commented experiment file to fill in.

    [bold]momkd init my_experiment.yaml[/bold]
    """
    from momkd.cli.template import write_template

    write_template(file)
    typer.echo(f"{file}: fill it in, then run `momkd check {file}`")


@app.command()
def doctor(
    folder: Annotated[Path, typer.Argument(help="Where runs will go.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Look at this machine: Python, torch, devices, threads, memory, disk, extras; exit code 1 if it will not do.

    [bold]momkd doctor runs/[/bold]
    """
    from momkd.cli.doctor import do_doctor

    do_doctor(folder, as_json=as_json)


@app.command()
def check(
    file: ExperimentFile,
    overrides: Overrides = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every feature file whole (finds NaN and infinities).")
    ] = False,
) -> None:
    """Report every problem of a cohort at once, with counts and names. Nothing is trained.

    [bold]momkd check E.yaml --deep[/bold]
    """
    from momkd.cli.render import show_check
    from momkd.cohort.check import check as run_check

    report = run_check(_load(file, overrides), deep=deep)
    show_check(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command("import-features")
def import_features(
    source: Annotated[Path, typer.Argument(help="A feature file, or a folder of them, in any known layout.")],
    out: Annotated[Path, typer.Option(help="Folder of the imported files.")],
    dtype: Annotated[str, typer.Option(help="float16 or float32.")] = "float16",
    slide_mpp: SlideMppOption = None,
    table: Annotated[str | None, typer.Option(help="The features of LazySlide stores that hold several.")] = None,
    k: Annotated[int | None, typer.Option(min=1, help="Also store the k-nearest-neighbour graph.")] = None,
) -> None:
    """Convert feature files to momkd's layout: contiguous float16, provenance, whole files only; resumable.

    [bold]momkd import-features trident_out/ --out features --k 8[/bold]
    """
    from momkd.cli.data import do_import

    do_import(source, out, dtype, slide_mpp, k, table)


@app.command()
def inspect(
    sources: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Feature files, or folders of them.")],
    slide_mpp: SlideMppOption = None,
    table: Annotated[str | None, typer.Option(help="The features of LazySlide stores that hold several.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, one object a file.")] = False,
) -> None:
    """Say what feature files are, and everything that is wrong with them; exit code 1 if any cannot be used.

    [bold]momkd inspect features/slide.h5[/bold]

    [bold]momkd inspect slide.zarr trident_out/ --json[/bold]
    """
    from momkd.cli.data import do_inspect

    do_inspect(sources, slide_mpp, table, as_json=as_json)


@app.command()
def extract(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SLIDES…", help="Slides, folders of them, tables (CSV: file, slide_id, mpp)."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the feature files; an unfinished one goes on.")],
    encoder: Annotated[
        str, typer.Option(help="uni2-h, virchow2, conch …; the default needs no download.")
    ] = "efficientnet-lite0",
    checkpoint: Annotated[Path | None, typer.Option(help="The encoder's weights; nothing is downloaded.")] = None,
    mpp: Annotated[float, typer.Option(help="µm per pixel of the patches: 0.5 is 20×.")] = 0.5,
    patch_size: Annotated[int, typer.Option(help="Pixels at --mpp.")] = 256,
    overlap: Annotated[int, typer.Option(help="Pixels at --mpp that neighbours share.")] = 0,
    slide_mpp: Annotated[
        float | None, typer.Option(help="µm per level-0 pixel of slides whose metadata have none.")
    ] = None,
    tissue: Annotated[str, typer.Option(help="How tissue is found: otsu, entropy, or none (whole image).")] = "otsu",
    min_tissue: Annotated[float, typer.Option(help="Share of a patch that must be tissue.")] = 0.7,
    k: Annotated[int | None, typer.Option(min=1, help="Also store the k-nearest-neighbour graph.")] = None,
    dtype: Annotated[str, typer.Option(help="How features are stored: float16 or float32.")] = "float16",
    precision: Annotated[str, typer.Option(help="auto (bf16 on CUDA), float32 or bf16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Patches encoded at once.")] = 64,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read patches ahead.")] = None,
    reader: Annotated[str | None, typer.Option(help="wsidata's reader, such as tiffslide (default: by file).")] = None,
) -> None:
    """Turn slides into features: tissue, patches, an encoder; resumable, and a broken slide stops no other.

    [bold]momkd extract slides/ --out features[/bold]

    [bold]momkd extract slides/ --out features --encoder uni2-h --patch-size 896 --slide-mpp 0.25[/bold]
    """
    from momkd.cli.extract import do_extract
    from momkd.extract.settings import ExtractSettings

    settings = ExtractSettings(
        encoder=encoder,
        checkpoint=checkpoint,
        mpp=mpp,
        patch_size=patch_size,
        overlap=overlap,
        tissue=tissue,
        min_tissue=min_tissue,
        slide_mpp=slide_mpp,
        reader=reader,
        dtype=dtype,
        graph_k=k,
        precision=precision,
        device=device,
        batch_size=batch_size,
        workers=workers,
    )
    do_extract(sources, out, settings)


@app.command()
def graph(
    folder: Annotated[Path, typer.Argument(help="A folder of feature files in momkd's layout.")],
    k: Annotated[int, typer.Option(min=1, help="Nearest neighbours.")] = 8,
) -> None:
    """Store the k-nearest-neighbour graph in every feature file of a folder.

    [bold]momkd graph features --k 8[/bold]
    """
    from momkd.cli.data import do_graph

    do_graph(folder, k)


@app.command()
def pack(
    file: ExperimentFile,
    store: Annotated[
        Path | None, typer.Option(help="The store's folder, if not the experiment's features.store.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float16, bfloat16 or float32.")] = None,
    overrides: Overrides = None,
) -> None:
    """Pack a cohort's features and graphs into a few large files that all folds and workers map; resumable.

    [bold]momkd pack E.yaml --store packed --dtype float16[/bold]
    """
    from momkd.cli.data import do_pack

    changes = [] if store is None else [f"features.store={store.resolve()}"]
    changes += [] if dtype is None else [f"features.store_dtype={dtype}"]
    do_pack(_load(file, [*(overrides or []), *changes]))


@app.command()
def genes(
    file: ExperimentFile,
    out: Annotated[Path, typer.Option(help="Folder for genes.csv and folds.csv.")],
    overrides: Overrides = None,
) -> None:
    """Rank the genes, and say how much they know of the label: held-out AUC, stability of the choice.

    [bold]momkd genes E.yaml --out genes[/bold]
    """
    from momkd.cli.data import do_genes

    do_genes(_load(file, overrides), out)


@app.command()
def crossval(
    file: ExperimentFile,
    out: Annotated[Path, typer.Option(help="The run folder; an unfinished run of the same settings goes on.")],
    overrides: Overrides = None,
    workers: Workers = None,
) -> None:
    """Leak-free cross-validation: the main job.

    [bold]momkd crossval E.yaml --out runs/her2 --set cv.repeats=5[/bold]
    """
    from momkd.cli.runs import do_crossval

    do_crossval(_load(file, overrides), out, workers)


@app.command()
def compare(
    file: ExperimentFile,
    out: Annotated[Path, typer.Option(help="The comparison's folder; an unfinished one of the same settings goes on.")],
    methods: Annotated[
        str | None,
        typer.Option(help="Comma-separated; the first is what the others are compared with; all = every one."),
    ] = None,
    workers: Workers = None,
    overrides: Overrides = None,
) -> None:
    """Cross-validate several methods on the same folds: one table with statistics, as CSV, Markdown and LaTeX.

    [bold]momkd compare E.yaml --out comparisons/her2[/bold]

    [bold]momkd compare E.yaml --methods momkd,abmil,clam-sb,soft-labels --out comparisons/her2[/bold]
    """
    from momkd.cli.comparisons import do_compare

    do_compare(_load(file, overrides), out, methods, workers)


@app.command()
def sweep(
    file: ExperimentFile,
    out: Annotated[Path, typer.Option(help="The sweep's folder; an unfinished one goes on, a larger grid adds to it.")],
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="A.B=C,D,E", help="Vary one setting; repeatable. Without it: the file's section sweep."),
    ] = None,
    workers: Workers = None,
    show_test: Annotated[
        bool, typer.Option("--show-test", help="Show test scores too; they are not for choosing.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Cross-validate every combination of some settings on the same folds; one table and one figure, by validation.

    [bold]momkd sweep E.yaml --grid model.memory.codes=8,16 --grid train.lr=1e-4,2e-4 --out sweeps/codes[/bold]

    [bold]momkd sweep E.yaml --out sweeps/ablation[/bold] (with a section [bold]sweep:[/bold] in the file)
    """
    from momkd.cli.sweeps import do_sweep
    from momkd.experiment import load_sweep

    do_sweep(load_sweep(file, grid or [], overrides or []), out, workers, show_test=show_test)


@app.command()
def fit(
    file: ExperimentFile,
    out: Annotated[Path, typer.Option(help="The run folder; an unfinished run of the same settings goes on.")],
    overrides: Overrides = None,
) -> None:
    """Train the model to deploy on all patients; a validation share chooses epoch and threshold, nothing is tested.

    [bold]momkd fit E.yaml --out runs/her2-final[/bold]
    """
    from momkd.cli.runs import do_fit

    do_fit(_load(file, overrides), out)


@app.command()
def evaluate(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    file: Annotated[Path, typer.Argument(metavar="E2.yaml", help="The experiment file of another cohort.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    overrides: Overrides = None,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Accept patients that the run has seen.")
    ] = False,
) -> None:
    """Judge a run on an external cohort, from histology alone; refuses patients that the run has seen.

    [bold]momkd evaluate runs/her2 external.yaml --out runs/her2-external[/bold]
    """
    from momkd.cli.runs import do_evaluate

    do_evaluate(run_folder, _load(file, overrides), out, allow_overlap)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run, a fold folder or a student folder.")],
    sources: Annotated[list[Path], typer.Argument(metavar="FEATURES…", help="Feature files or folders of them.")],
    out: Annotated[Path, typer.Option(help="The table of predictions (CSV), one row a slide.")],
    table: Annotated[
        Path | None, typer.Option(help="CSV with patient_id and slide_id: adds a table a patient.")
    ] = None,
    slide_mpp: SlideMppOption = None,
) -> None:
    """Score slides from histology alone.

    [bold]momkd predict runs/her2 features/ --out scores.csv[/bold]
    """
    from momkd.cli.runs import do_predict

    do_predict(model, sources, out, table, slide_mpp)


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
