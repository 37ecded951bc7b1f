"""`helios token`: bearer tokens made, listed and revoked; and whose token this is."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text

from helios.cli.client import connect
from helios.cli.completion import complete_cell, complete_tenant
from helios.cli.output import Format, FormatOption, err, examples, said, show, table_of
from helios.errors import NotFoundError

NEVER = "never"
STATE_STYLES = {"Active": "green", "Expired": "yellow", "Revoked": "red"}

token_app = typer.Typer(no_args_is_help=True, help="Tokens: who may call the control plane.")


class Role(StrEnum):
    """What a token may do; written out so that `helios --help` need not import the API."""

    VIEWER = "viewer"
    RESEARCHER = "researcher"
    PLATFORM = "platform"
    ADMIN = "admin"
    AGENT = "agent"


def register(app: typer.Typer) -> None:
    app.add_typer(token_app, name="token", rich_help_panel="Fleet")


@token_app.command(
    epilog=examples(
        "helios token create --subject alice --role researcher --tenant research",
        "helios token create --subject ci --role viewer --tenant '*' --ttl 30d",
        "helios token create --subject agent:use1 --role agent --cell use1 --ttl never > use1.token",
    )
)
def create(
    *,
    subject: Annotated[str, typer.Option(help="Whom it is for; the audit log names them.")],
    role: Annotated[Role, typer.Option(help="What it may do.")],
    tenant: Annotated[
        list[str] | None,
        typer.Option(help="A tenant that it reaches, or *; may be repeated.", autocompletion=complete_tenant),
    ] = None,
    cell: Annotated[str, typer.Option(help="For an agent: its cell.", autocompletion=complete_cell)] = "",
    ttl: Annotated[str, typer.Option(help=f"How long it is good for: 12h, 90d, {NEVER} ends.")] = "90d",
    how: FormatOption = Format.TABLE,
) -> None:
    """Make a token. It is printed once, on standard output and alone there; only its hash is kept."""
    wanted: dict[str, Any] = {"subject": subject, "role": role.value, "ttl": None if ttl == NEVER else ttl}
    if tenant:
        wanted["tenants"] = tenant
    if cell:
        wanted["cell"] = cell
    with connect() as client:
        made = client.create_token(wanted)
    if how is Format.TABLE:
        until = f"until {made['expiresAt']}" if made.get("expiresAt") else "until it is revoked"
        said = f"token {made['id']} for {escape(subject)}, {role.value}, {until}; keep it: it is shown this once"
        err().print(said, soft_wrap=True)
    show(made, how, lambda: Text(made["token"], overflow="ignore", no_wrap=True))


@token_app.command("list", epilog=examples("helios token list", "helios token list --all -o json"))
def list_tokens(
    everything: Annotated[bool, typer.Option("--all", help="Also those that are expired or revoked.")] = False,
    how: FormatOption = Format.TABLE,
) -> None:
    """List tokens: whose they are and what they may do, never what opens the door."""
    with connect() as client:
        items = [item for item in client.tokens()["items"] if everything or item["state"] == "Active"]
    show(items, how, lambda: table_of(_COLUMNS, map(_row, items), empty="no tokens"))


@token_app.command(epilog=examples("helios token revoke 3f9a1c0d5e7b2a48"))
def revoke(
    ids: Annotated[list[str], typer.Argument(help="Ids, as `helios token list` shows them.", show_default=False)],
) -> None:
    """Make tokens worthless at once and for good. Where one of the ids is not there, nothing is revoked."""
    with connect() as client:
        known = [item["id"] for item in client.tokens()["items"]]
        for token_id in ids:
            if token_id not in known:
                raise NotFoundError("token", token_id, known=known, hint="`helios token list` shows the ids")
        for token_id in ids:
            client.revoke_token(token_id)
            said(f"token/{escape(token_id)} revoked")


@token_app.command(epilog=examples("helios token whoami", "helios token whoami -o json"))
def whoami(how: FormatOption = Format.TABLE) -> None:
    """Say whose token this command line uses, and what it may do."""
    with connect() as client:
        me = client.whoami()
    rows = [(name, _shown(value)) for name, value in me.items()]
    show(me, how, lambda: table_of(("WHO", ""), rows))


_COLUMNS = ("ID", "SUBJECT", "ROLE", "REACHES", "STATE", "EXPIRES")


def _row(item: Mapping[str, Any]) -> list[str | Text]:
    reach = f"cell {item['cell']}" if item.get("cell") else ", ".join(item["tenants"])
    state = Text(item["state"], style=STATE_STYLES.get(item["state"], ""))
    return [item["id"], item["subject"], item["role"], reach or "-", state, (item.get("expiresAt") or NEVER)[:10]]


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value) or "-"
    if isinstance(value, dict):
        return " ".join(f"{key}={_shown(item)}" for key, item in value.items())
    return str(value) if value not in {None, ""} else "-"
