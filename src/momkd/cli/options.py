"""What the verbs share: the application, and options that mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

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
ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="A run, a fold folder or a student folder.")]
FeaturesArgument = Annotated[
    list[str],
    typer.Argument(metavar="FEATURES…", help="Feature files or folders of them, here or behind a URL (s3://…)."),
]
DeviceOption = Annotated[str, typer.Option("--device", help="Where networks compute: cpu, cuda, cuda:1 …")]
SlideMppOption = Annotated[
    str | None,
    typer.Option(
        "--slide-mpp", metavar="MPP|CSV", help="µm per level-0 pixel where files lack it; or a CSV: slide_id, mpp."
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Accept features of another encoder or patch size than in training.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes that share the folds (default: from the cores)")]
OnOption = Annotated[
    str,
    typer.Option(
        "--on",
        help="Where tasks are done: local, ray (started here), auto or ray://host:port. Needs the extra cluster.",
    ),
]
DevicesOption = Annotated[int, typer.Option(min=1, help="Devices of this machine that share every step of a fit.")]
NodesOption = Annotated[int, typer.Option(min=1, help="Machines that do; torchrun or srun starts them.")]
GpusOption = Annotated[float, typer.Option("--gpus-per-task", min=0, help="Of a Ray's GPUs; may be a fraction.")]


def load(path: Path, overrides: list[str] | None) -> Any:
    """The experiment of a file, with overrides."""
    from momkd.experiment import load_experiment

    return load_experiment(path, overrides or [])
