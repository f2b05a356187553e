"""The ``momkd`` command: all verbs, and what becomes of their errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from momkd.cli import verbs_data, verbs_serve, verbs_study
from momkd.cli.options import app
from momkd.cli.verbs_gdc import app as gdc
from momkd.errors import MomkdError
from momkd.parallel.stopping import EXIT_CODE, StopRequested

# Importing the verbs is what registers them; help lists them in this order.
VERBS = (verbs_data, verbs_study, verbs_serve)
app.add_typer(gdc)

_INTERRUPTED = 130
# Typer brings its own copy of click or uses an installed one, by version; both hang the error of wrong usage here.
_UsageError: type[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 = done, 1 = a reported problem, 2 = wrong usage, 130 = interrupted, 143 = SIGTERM."""
    try:
        code = app(args=None if arguments is None else list(arguments), standalone_mode=False)
    except MomkdError as error:
        return _report(str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except StopRequested:
        return _report("SIGTERM: stopped; run the same command again to go on", code=EXIT_CODE)
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


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"momkd {installed('momkd')}")
        raise typer.Exit
