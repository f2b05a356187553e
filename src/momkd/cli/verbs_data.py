"""The verbs before training: machine, template, cohort, features, genes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from momkd.cli.options import (
    ExperimentFile,
    FeaturesArgument,
    GpusOption,
    OnOption,
    Overrides,
    SlideMppOption,
    app,
    load,
)
from momkd.parallel import Place


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

    report = run_check(load(file, overrides), deep=deep)
    show_check(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command("import-features")
def import_features(
    source: Annotated[
        str, typer.Argument(help="A feature file, or a folder of them, in any known layout, here or behind a URL.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the imported files.")],
    dtype: Annotated[str, typer.Option(help="float16 or float32.")] = "float16",
    slide_mpp: SlideMppOption = None,
    table: Annotated[str | None, typer.Option(help="The features of LazySlide stores that hold several.")] = None,
    k: Annotated[int | None, typer.Option(min=1, help="Also store the k-nearest-neighbour graph.")] = None,
    on: OnOption = "local",
) -> None:
    """Convert feature files to momkd's layout: contiguous float16, provenance, whole files only; resumable.

    [bold]momkd import-features trident_out/ --out features --k 8[/bold]
    """
    from momkd.cli.data import do_import

    do_import(source, out, dtype, slide_mpp, k, table, Place(on))


@app.command()
def inspect(
    sources: FeaturesArgument,
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
    on: OnOption = "local",
    gpus_per_task: GpusOption = 0.0,
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
    do_extract(sources, out, settings, Place(on, gpus=gpus_per_task))


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
    do_pack(load(file, [*(overrides or []), *changes]))


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

    do_genes(load(file, overrides), out)
