"""The verbs that bring a cohort from the Genomic Data Commons: `momkd gdc plan`, `download`, `rna`, `cohort`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="gdc",
    help="From the Genomic Data Commons to a cohort: plan, download, rna, cohort, in this order; each resumes.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the plan.")]
Token = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The GDC portal's token, for controlled files.", show_default=False)
]


@app.command()
def plan(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the plan, and of all that follows.")],
    project: Annotated[str, typer.Option(help="A project of TCGA.")] = "TCGA-BRCA",
    sample_types: Annotated[
        str, typer.Option(help="TCGA sample types, the preferred first: 01 primary, 06 metastasis …")
    ] = "01",
    patients: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only these: a patient's barcode first in every line.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N patients with slides and RNA.")] = None,
    server: Annotated[
        str, typer.Option(metavar="URL", help="Another server of the GDC's API.")
    ] = "https://api.gdc.cancer.gov",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds without a byte before a request is made again.")] = 60,
    retries: Annotated[int, typer.Option(min=0, help="How often a failed request is made again.")] = 5,
) -> None:
    """Ask the GDC what there is, choose the cohort, and write lists, sizes and gdc-client manifests; no download.

    [bold]momkd gdc plan --out brca[/bold]

    [bold]momkd gdc plan --project TCGA-LUAD --limit 20 --out luad-small[/bold]
    """
    from momkd.cli.gdc import do_plan

    do_plan(out, project, sample_types, patients, limit, server, timeout, retries)


@app.command()
def download(
    folder: Folder,
    what: Annotated[
        str, typer.Option(help="Of clinical, rna and slides, separated by commas.")
    ] = "clinical,rna,slides",
    workers: Annotated[int, typer.Option(min=1, max=16, help="Files at once.")] = 4,
    token: Token = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Another server than the plan's.", show_default=False)
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compute the MD5 of what is there already as well.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds without a byte before a request is made again.")] = 60,
    retries: Annotated[int, typer.Option(min=0, help="How often a failed request is made again.")] = 5,
) -> None:
    """Download what the plan lists; go on where it stopped; only files of the right MD5 get their final name.

    [bold]momkd gdc download brca --what clinical,rna[/bold]

    [bold]momkd gdc download brca --what slides --workers 8[/bold]
    """
    from momkd.cli.gdc import do_download

    do_download(folder, what, workers, token, server, timeout, retries, verify=verify)


@app.command()
def rna(
    folder: Folder,
    values: Annotated[
        str, typer.Option(help="tpm_unstranded, fpkm_unstranded or unstranded (counts of reads).")
    ] = "tpm_unstranded",
    genes: Annotated[
        str, typer.Option(help="The type of gene to keep, such as protein_coding, or all.")
    ] = "protein_coding",
) -> None:
    """Merge the downloaded STAR-count files into rna.parquet, one column a patient, rows by gene symbol.

    [bold]momkd gdc rna brca[/bold]

    [bold]momkd gdc rna brca --values unstranded --genes all[/bold]
    """
    from momkd.cli.gdc import do_rna

    do_rna(folder, values, genes)


@app.command()
def cohort(
    folder: Folder,
    labels: Annotated[
        list[Path] | None, typer.Option(metavar="TABLE", help="CSV or TSV of more labels by patient; repeatable.")
    ] = None,
    patient_column: Annotated[str, typer.Option(help="The column of patients in those tables.")] = "patient_id",
) -> None:
    """Write cohort.csv (slides, sites, HER2, PR, ER, survival, your labels) and a first experiment.yaml.

    [bold]momkd gdc cohort brca[/bold]

    [bold]momkd gdc cohort brca --labels odx.csv[/bold]
    """
    from momkd.cli.gdc import do_cohort

    do_cohort(folder, labels or [], patient_column)
