"""The verb that serves students to people and programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from momkd.cli.options import DeviceOption, app


@app.command()
def serve(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL…", help="Runs, folds or student folders; NAME=FOLDER names one.")
    ],
    features: Annotated[
        list[Path] | None, typer.Option(help="Feature files or folders that people may choose from; repeatable.")
    ] = None,
    slides: Annotated[
        list[Path] | None,
        typer.Option(help="Slides, folders or tables of them that people may choose from; repeatable. Needs wsi."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets others in, with a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free one.")] = 8080,
    token: Annotated[
        str | None,
        typer.Option(envvar="MOMKD_TOKEN", help="Who enters must know it; made and printed where others can reach us."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Makes features of slides without any (default: the one the student expects).")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights of the encoder.")] = None,
    slide_mpp: Annotated[float | None, typer.Option(help="µm per level-0 pixel where files lack it.")] = None,
    patch_size_level0: Annotated[
        float | None, typer.Option(min=1, help="Side of a patch in level-0 pixels, where feature files do not say it.")
    ] = None,
    max_upload: Annotated[int, typer.Option(metavar="MB", min=1, help="Largest file that may be sent.")] = 4096,
    max_silence: Annotated[float, typer.Option(help="Seconds without a byte that end an upload.")] = 30.0,
    max_seconds: Annotated[float, typer.Option(help="Longest that a job may take.")] = 3600.0,
    max_jobs: Annotated[int, typer.Option(help="Jobs that wait, run or are kept.")] = 50,
    keep_minutes: Annotated[float, typer.Option(help="Results go so long after the last look at them.")] = 60.0,
    work: Annotated[
        Path | None, typer.Option(help="Folder for uploads and results while kept (default: a temporary one).")
    ] = None,
    device: DeviceOption = "cpu",
) -> None:
    """A web page and an HTTP API: drop a slide or a feature file, see score, map and patches. Needs the extra serve.

    [bold]momkd serve runs/her2 --features features/ --slides slides/[/bold]

    [bold]momkd serve her2=runs/her2 odx=runs/odx --host 0.0.0.0 --port 8443[/bold]
    """
    from momkd.cli.serve import do_serve
    from momkd.serve.settings import ServeSettings, is_loopback, named_models

    if token is None and not is_loopback(host):
        from secrets import token_urlsafe

        token = token_urlsafe(24)
    settings = ServeSettings(
        models=named_models(models),
        features=tuple(features or ()),
        slides=tuple(slides or ()),
        encoder=encoder,
        checkpoint=checkpoint,
        slide_mpp=slide_mpp,
        patch_size_level0=patch_size_level0,
        device=device,
        host=host,
        port=port,
        token=token,
        work=work,
        max_upload=max_upload << 20,
        max_silence=max_silence,
        max_seconds=max_seconds,
        max_jobs=max_jobs,
        keep_minutes=keep_minutes,
    )
    do_serve(settings)
