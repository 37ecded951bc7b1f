"""`helios generate` and `helios consent`: a reference video and speech in, a talking video out, over HTTP only."""

import getpass
import socket
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from helios.cli.client import connect
from helios.cli.output import Format, FormatOption, err, examples, show, table_of
from helios.cli.videos import VideoClient, VideoRequest, atomic_file, sha256_of
from helios.errors import ConflictError, InputError, NotFoundError, TooLargeError, UnavailableError

MAX_UPLOAD_BYTES = 2**30
"""What is worth hashing and sending where the service does not state its own, smaller limit."""

consent_app = typer.Typer(no_args_is_help=True, help="Records of people's agreement to be depicted.")

ServiceOption = Annotated[str, typer.Option("--service", help="Service that answers.")]
EndpointOption = Annotated[str, typer.Option("--endpoint", help="Its URL, where it is not on this control plane.")]


def register(app: typer.Typer) -> None:
    app.command(
        rich_help_panel="Use a model",
        epilog=examples(
            "helios generate --reference clip.mp4 --audio speech.flac -o out.mp4",
            'helios generate --reference clip.mp4 --text "Good morning." --voice en-us -o hello.mp4 --seed 7',
            "helios generate --reference clip.mp4 --audio a.wav -o o.mp4 --endpoint http://127.0.0.1:8000/avatar",
        ),
    )(generate)
    app.add_typer(consent_app, name="consent", rich_help_panel="Use a model")


def generate(
    *,
    reference: Annotated[Path, typer.Option(help="Video of the person: who they are and how they move.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="MP4 to write.")],
    audio: Annotated[Path | None, typer.Option(help="Speech to be spoken (wav, flac, mp3, m4a, ogg).")] = None,
    text: Annotated[str | None, typer.Option(help="Text to be spoken, in place of --audio.")] = None,
    voice: Annotated[str | None, typer.Option(help="Voice for --text, such as en-us.")] = None,
    prompt: Annotated[str, typer.Option(help="Scene and style in words.")] = "",
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same video.")] = None,
    consent: Annotated[str, typer.Option(help="Id of a consent record; without it one is recorded.")] = "",
    service: ServiceOption = "avatar",
    endpoint: EndpointOption = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output file.")] = False,
) -> None:
    """Make a talking video from a reference video and speech."""
    if (audio is None) == (text is None):
        raise InputError("give the speech as either --audio FILE or --text WORDS")
    if voice is not None and text is None:
        raise InputError("--voice speaks --text; it has no use with --audio")
    if text is not None and not text.strip():
        raise InputError("--text has no words in it")
    _check_output(output, force=force)
    for path in (reference, audio):
        if path is not None:
            _check_input(path)
    url, limit = (endpoint, MAX_UPLOAD_BYTES) if endpoint else _endpoint_of(service)
    _check_size([path for path in (reference, audio) if path is not None], limit)
    fields = {"prompt": prompt, "voice": voice or "", "seed": "" if seed is None else str(seed)}
    with VideoClient(url) as client:
        request = VideoRequest(
            reference=reference,
            audio=audio,
            text=text,
            consent_id=consent or _attest(client, reference),
            fields={name: value for name, value in fields.items() if value},
        )
        try:
            video = _with_progress(client, request)
        except InputError:
            if not consent:
                client.withdraw_consent(request.consent_id)
                err().print(f"  consent {request.consent_id} withdrawn: no video was made", soft_wrap=True)
            raise
        with atomic_file(output) as file:
            size = client.download(video["id"], file)
    err().print(f"[green]Wrote[/green] {output} ({size / 1e6:.2f} MB)", soft_wrap=True)


@consent_app.command(
    "create",
    epilog=examples(
        'helios consent create --subject "Ada Lovelace" --reference clip.mp4',
        'helios consent create --subject "Ada Lovelace" --granted-by legal@example.com --expires 2030-01-01T00:00:00Z',
    ),
)
def create_consent(
    *,
    subject: Annotated[str, typer.Option(help="Whose likeness it is.")],
    reference: Annotated[Path | None, typer.Option(help="Bind the record to this one video.")] = None,
    granted_by: Annotated[str, typer.Option(help="Who attests it; you, unless given.")] = "",
    statement: Annotated[str, typer.Option(help="What was agreed to.")] = "",
    expires: Annotated[str, typer.Option(help="When it ends (ISO 8601).")] = "",
    service: ServiceOption = "avatar",
    endpoint: EndpointOption = "",
    how: FormatOption = Format.TABLE,
) -> None:
    """Record that a person agreed to be depicted; prints the record's id."""
    digest = ""
    if reference is not None:
        _check_input(reference)
        digest = sha256_of(reference)
    record = {
        "subject": subject,
        "granted_by": granted_by or _user(),
        "statement": statement or _statement(subject),
        "reference_sha256": digest,
        "expires_at": expires,
    }
    with VideoClient(endpoint or _endpoint_of(service)[0]) as client:
        created = client.create_consent({name: value for name, value in record.items() if value})
    show(created, how, lambda: created["id"])


@consent_app.command("list", epilog=examples("helios consent list", "helios consent list -o json"))
def list_consents(
    service: ServiceOption = "avatar", endpoint: EndpointOption = "", how: FormatOption = Format.TABLE
) -> None:
    """List the consent records of a service."""
    with VideoClient(endpoint or _endpoint_of(service)[0]) as client:
        records = client.consents()
    columns = ("id", "subject", "granted_by", "expires_at")
    rows = [[str(record.get(column) or "-") for column in columns] for record in records]
    show(records, how, lambda: table_of([name.upper() for name in columns], rows, empty="no consent is recorded"))


def _with_progress(client: VideoClient, request: VideoRequest) -> dict[str, Any]:
    console = err()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("uploading", total=100)
        video = client.create_video(request)
        said = ""

        def on_progress(now: dict[str, Any]) -> None:
            nonlocal said
            bar.update(task, description=now["status"].replace("_", " "), completed=float(now.get("progress") or 0))
            if not console.is_terminal and now["status"] != said:
                said = now["status"]
                console.print(f"video {now['id']}: {said}", soft_wrap=True)

        return client.wait(video["id"], on_progress=on_progress)


def _attest(client: VideoClient, reference: Path) -> str:
    digest = sha256_of(reference)
    console = err()
    console.print(
        f"[yellow]No --consent was given.[/yellow] By going on, you ({_user()}) attest that the person depicted in"
        f" {reference.name} agreed to this use of their likeness. This is recorded, bound to the file's SHA-256:",
        soft_wrap=True,
    )
    console.print(f"  {digest}", soft_wrap=True)
    record = client.create_consent(
        {
            "subject": f"the person depicted in {reference.name}",
            "granted_by": _user(),
            "statement": _statement(f"the person depicted in {reference.name}"),
            "reference_sha256": digest,
        }
    )
    console.print(f"  consent {record['id']}  (use it again with --consent {record['id']})", soft_wrap=True)
    return str(record["id"])


def _statement(subject: str) -> str:
    return f"{_user()} attests that {subject} agreed to the generation of talking videos from their likeness."


def _user() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a container's uid without a passwd entry
        return f"user@{socket.gethostname()}"


def _endpoint_of(service: str) -> tuple[str, int]:
    """URL of a Ready service and its upload limit in bytes."""
    with connect() as client:
        try:
            found = client.get("Service", service)
        except NotFoundError as error:
            raise NotFoundError(
                "service",
                service,
                known=[error.nearest] if error.nearest else [],
                hint="deploy one with `helios serve deploy jobs/services/avatar.yaml`",
            ) from error
    status = found.get("status") or {}
    if status.get("state") != "Ready" or not status.get("url"):
        said = status.get("message") or "it is not up yet"
        raise UnavailableError(
            f"service {service} is {status.get('state', 'Pending')}: {said}",
            hint=f"watch it with `helios explain {service}`",
        )
    return str(status["url"]), _limit_of(found)


def _limit_of(service: dict[str, Any]) -> int:
    from helios.spec.quantities import parse_memory

    return parse_memory(service["spec"].get("config", {}).get("maxUploadBytes", MAX_UPLOAD_BYTES))


def _check_input(path: Path) -> None:
    if not path.exists():
        raise InputError(f"there is no file {path}")
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    try:
        with path.open("rb"):
            pass
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: permission denied") from error


def _check_size(paths: list[Path], limit: int) -> None:
    total = sum(path.stat().st_size for path in paths)
    if total > limit:
        names = " and ".join(path.name for path in paths)
        raise TooLargeError(
            f"{names}: {total / 2**20:,.1f} MiB are over the limit of {limit / 2**20:,.0f} MiB",
            hint="shorten or re-encode the reference: a few seconds are enough",
        )


def _check_output(path: Path, *, force: bool) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder; --output names a file")
    if path.exists() and not force:
        raise ConflictError(f"{path} exists", hint="overwrite it with --force")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}")
