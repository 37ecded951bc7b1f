"""`helios`: the commands put together, and the one place where errors become words and exit codes."""

import importlib.metadata
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape

from helios import __version__
from helios.cli import (
    actions,
    admin,
    agents,
    apply,
    embedded,
    events,
    explain,
    fleet,
    generate,
    logs,
    objects,
    overview,
    planning,
    queued,
    server,
    serving,
    simulate,
    specs,
    submit,
    tenants,
    tokens,
    usage,
)
from helios.cli.output import err
from helios.errors import HeliosError, SpecError

MODULES = (
    *(embedded, specs),
    *(apply, planning, objects),
    *(submit, queued, actions, explain, logs, events),
    *(serving, generate),
    *(overview, fleet, tenants, usage, simulate, tokens, admin, server, agents),
)
"""In the order of `helios --help`."""
PLUGINS = "helios.commands"
EXIT_CODES = """\
Exit codes: 0 done · 1 a defect of HELIOS · 2 the input is wrong, or not allowed · 3 a part of HELIOS does not answer ·
4 an engine (Ray, MLflow, Pulumi) failed · 5 no disk space · 6 the job, curriculum or video failed · 130 Ctrl-C

HELIOS_DEBUG=1 shows tracebacks. HELIOS_HOME, HELIOS_API and HELIOS_TOKEN say where the control plane is."""


def build() -> typer.Typer:
    """Compose the application: our commands, then those of installed plugins."""
    app = typer.Typer(
        name="helios",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=EXIT_CODES,
    )
    app.callback()(_root)
    for module in MODULES:
        module.register(app)
    _add_plugins(app)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; every error is said in a line or two on stderr."""
    try:
        app(list(sys.argv[1:] if arguments is None else arguments), prog_name="helios")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except KeyboardInterrupt:
        return 130
    except SpecError as error:
        from helios.cli.specs import problems_view

        err().print(problems_view(error.problems), soft_wrap=True)
        return _say(error, "", hint=error.hint, code=error.exit_code)
    except HeliosError as error:
        return _say(error, error.message, hint=error.hint, code=error.exit_code)
    except Exception as error:  # noqa: BLE001  # the edge: whatever comes, no traceback reaches a user unasked
        name = type(error).__name__
        hint = "this is a defect of HELIOS; HELIOS_DEBUG=1 shows where it happened"
        return _say(error, f"{name}: {error}" if str(error) else name, hint=hint, code=1)
    return 0


def main() -> None:
    sys.exit(run())


def _say(error: Exception, message: str, *, hint: str, code: int) -> int:
    if os.environ.get("HELIOS_DEBUG", "0") not in {"", "0"}:
        traceback.print_exception(error)
    console = err()
    if message:
        console.print(f"[bold red]Error:[/bold red] {escape(message)}", soft_wrap=True)
    if hint:
        console.print(f"[dim]Hint:[/dim] {escape(hint)}", soft_wrap=True)
    return code


def _add_plugins(app: typer.Typer) -> None:
    for entry in importlib.metadata.entry_points(group=PLUGINS):
        try:
            app.add_typer(entry.load(), name=entry.name, rich_help_panel="Plugins")
        except Exception as error:  # noqa: BLE001  # somebody else's code: its defect must not take our commands away
            err().print(
                f"[yellow]Plugin {escape(entry.name)} is left out:[/yellow] {escape(str(error))}", soft_wrap=True
            )


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"helios {__version__}")
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """One control plane for a whole GPU fleet: cells, a two-stage scheduler, Ray, MLflow, talking avatars."""


app = build()

if __name__ == "__main__":
    main()
