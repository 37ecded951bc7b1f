"""`helios server`: one replica of the control plane. Several over one database are a fleet's; one of them leads."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from helios.cli.output import examples
from helios.errors import InputError

PANEL = "Fleet"
LogOption = Annotated[Literal["console", "json"], typer.Option(help="How log lines look.")]
LISTEN = "127.0.0.1:8600"


def register(app: typer.Typer) -> None:
    app.command(
        rich_help_panel=PANEL,
        epilog=examples(
            "helios server --database helios.db",
            "helios server --database postgresql://helios@db.internal/helios --listen 0.0.0.0:8600 "
            "--tls-cert tls.crt --tls-key tls.key",
        ),
    )(server)


def server(
    *,
    database: Annotated[
        str,
        typer.Option(
            envvar="HELIOS_DATABASE",
            help="Where everything is kept: a SQLite file, or postgresql://USER@HOST/DATABASE.",
        ),
    ],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the API answers.")] = LISTEN,
    name: Annotated[
        str, typer.Option(help="Of this replica, unique among them; host and port where it is not set.")
    ] = "",
    address: Annotated[
        str, typer.Option(metavar="URL", help="How others reach this replica; its own host and port by default.")
    ] = "",
    admin_token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="HELIOS_BOOTSTRAP_TOKEN_FILE",
            help="Holds a token with the role admin; made (0600) where it is not there.",
            show_default=False,
        ),
    ] = None,
    oidc: Annotated[
        Path | None,
        typer.Option(help="YAML file: an OIDC issuer, and what its tokens may do here.", show_default=False),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain (PEM).", show_default=False)] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).", show_default=False)] = None,
    mlflow: Annotated[
        str, typer.Option(metavar="URL", envvar="MLFLOW_TRACKING_URI", help="The experiment tracker.")
    ] = "",
    log_format: LogOption = "console",
) -> None:
    """Run a replica of the control plane until SIGTERM: API and store, and the controllers while it leads.

    Replicas share a PostgreSQL database; when the one that leads is lost, another takes over within seconds.
    """
    if (tls_cert is None) != (tls_key is None):
        raise InputError("--tls-cert and --tls-key go together")
    from helios.cli import replica  # web server, store and controllers: nothing that `helios --help` should wait for

    replica.serve(
        replica.Options(
            database=database,
            listen=replica.Listen.parse(listen),
            name=name,
            address=address,
            admin_token_file=admin_token_file,
            oidc=oidc,
            tls=(tls_cert, tls_key) if tls_cert is not None and tls_key is not None else None,
            mlflow=mlflow,
            log_format=log_format,
        )
    )
