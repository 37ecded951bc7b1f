"""One process of the control plane, put together: store, controllers, API. `helios server` is this and nothing else.

1. what is wrong with the command is said before anything is opened: certificates, port, database
2. the API answers on every replica; the controllers run on the one that holds the lease
3. SIGTERM: the lease is let go of at once, so that another replica takes it; requests in flight get three seconds
"""

import errno
import gc
import logging
import os
import re
import secrets
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from helios import __version__
from helios.adapters.mlflow.tracker import MlflowTracker
from helios.api.app import create_app
from helios.api.connections import BoundedHttp
from helios.api.oidc import Oidc, load_oidc
from helios.cli.draining import Draining
from helios.control import ControlPlane
from helios.errors import InputError, PortInUseError
from helios.store import open_store
from helios.telemetry import logs, tracing

DRAIN_S = 3
"""What requests in flight get after SIGTERM; those that only wait for news are ended at once."""
LET_GO_S = 5.0
"""How long the controllers may take to finish their pass and release the lease."""
YOUNG_OBJECTS = 10_000
"""New objects between two looks for garbage: some 4 ms, in which nobody else computes."""
COLLECT_ALL_S = 3600.0
SWITCH_S = 0.001
"""After how long a thread that computes gives the interpreter to one that waits. A write needs it some twenty times,
and at Python's own 5 ms each of these waits is as long as that while the scheduler computes.
"""
MIN_TOKEN = 16
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen; port 0 takes a free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `HOST:PORT`, an IPv6 address in brackets. Raises `InputError`."""
        matched = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]\s]+)):([0-9]{1,5})", text)
        if matched is None or int(matched[3]) > 65535:
            raise InputError(f"--listen: expected HOST:PORT, like 0.0.0.0:8600 or [::]:8600, got {text!r}")
        return cls(matched[1] or matched[2], int(matched[3]))

    def bind(self) -> socket.socket:
        """Open the socket. Raises `PortInUseError`, or `InputError` for an address that is not this machine's."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            return socket.create_server((self.host, self.port), family=family, backlog=2048)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                hint = "--listen takes another port, port 0 a free one"
                raise PortInUseError(f"port {self.port} of {self.host} is in use", hint=hint) from error
            raise InputError(f"--listen: {self.host}:{self.port} cannot be used: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True)
class Options:
    """What `helios server` was told; empty texts mean the default."""

    database: str
    listen: Listen
    name: str = ""
    address: str = ""
    admin_token_file: Path | None = None
    oidc: Path | None = None
    tls: tuple[Path, Path] | None = None
    mlflow: str = ""
    log_format: logs.Format = "console"


class ApiServer(uvicorn.Server):
    """Uvicorn that tells when it answers, and hears at once that it is to end.

    Uvicorn installs its own signal handlers while it runs, and comes back only after the last request.
    """

    def __init__(self, config: uvicorn.Config, *, on_start: Callable[[], None], on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start
        self._on_exit = on_exit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if not self.should_exit:
            self._on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_exit()
        super().handle_exit(sig, frame)


def _config(app: ASGIApp, *, tls: tuple[Path, Path] | None) -> uvicorn.Config:
    """How uvicorn serves the API; its socket is bound before."""
    certificate, key = tls or (None, None)
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=BoundedHttp,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )


def collect_seldom() -> None:
    """Look for cyclic garbage among what is new alone, and set aside what outlives the look.

    The records of a fleet are a million objects that are none of it, and every look at them stops all threads for as
    long as it takes. What becomes garbage later waits for `collect_all`.
    """
    gc.collect()
    gc.freeze()
    # The older generations are empty for as long as what outlives a look is set aside.
    gc.set_threshold(YOUNG_OBJECTS)
    gc.callbacks.append(_set_aside)


def _set_aside(phase: str, _info: dict[str, int]) -> None:
    if phase == "stop":
        gc.freeze()


def collect_all(stop: threading.Event, *, every_s: float = COLLECT_ALL_S) -> None:
    """Now and then look through everything that was set aside, until `stop`."""
    while not stop.wait(every_s):
        gc.unfreeze()
        gc.collect()


def serve(options: Options) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        InputError: an option is wrong; `PortInUseError` where the port is held.
        UnavailableError: the database does not answer.
    """
    if options.tls is not None:
        _check_certificate(*options.tls)
    oidc = Oidc(load_oidc(options.oidc)) if options.oidc is not None else None
    listener = options.listen.bind()
    with listener:
        token = admin_token(options.admin_token_file)
        scheme = "https" if options.tls else "http"
        host, port = listener.getsockname()[:2]
        url = options.address or f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        name = options.name or f"{socket.gethostname()}:{port}"
        configure_logging(options.log_format, replica=name)
        if options.tls is None and options.listen.host not in _LOOPBACK:
            _log.warning("tokens travel in the clear unless a proxy in front of %s speaks TLS", url)
        tracing.start("helios-server")
        store = open_store(options.database if "://" in options.database else Path(options.database))
        try:
            tracker = MlflowTracker(lambda: options.mlflow) if options.mlflow else None
            plane = ControlPlane(store, tracker=tracker)
            api = create_app(plane, token=token, links={"mlflow": options.mlflow}, oidc=oidc, replica=name)
            collect_seldom()
            sys.setswitchinterval(SWITCH_S)
            run_api(
                api,
                listener,
                tls=options.tls,
                work=lambda stop: plane.campaign(stop, holder=name, address=url),
                on_start=lambda: _log.info("HELIOS %s: replica %s answers at %s", __version__, name, url),
            )
        finally:
            store.close()
            tracing.stop()


def run_api(
    api: ASGIApp,
    listener: socket.socket,
    *,
    tls: tuple[Path, Path] | None = None,
    work: Callable[[threading.Event], None],
    on_start: Callable[[], None] = lambda: None,
    on_exit: Callable[[], None] = lambda: None,
) -> None:
    """Serve, with `work` in a thread beside it, until a signal or until `work` ends by itself.

    `on_exit` is called at the signal, before what is in flight has ended. Raises whatever `work` raised.
    """
    stop = threading.Event()
    failures: list[Exception] = []
    draining = Draining(api)

    def let_go() -> None:
        stop.set()
        draining.end()
        on_exit()

    server = ApiServer(_config(draining, tls=tls), on_start=on_start, on_exit=let_go)

    def run() -> None:
        try:
            work(stop)
        except Exception as error:  # noqa: BLE001  # handed to the main thread, which ends the process with it
            failures.append(error)
        finally:
            server.should_exit = True

    def leave(_number: int, _frame: FrameType | None) -> None:
        let_go()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)  # for the moments before and after uvicorn's own handlers
    thread = threading.Thread(target=run, name="control")
    thread.start()
    threading.Thread(target=collect_all, args=(stop,), name="garbage", daemon=True).start()
    try:
        server.run(sockets=[listener])
    finally:
        stop.set()
        thread.join(timeout=LET_GO_S)
    if failures:
        raise failures[0]


def configure_logging(how: logs.Format = "console", *, replica: str = "") -> None:
    """Log to standard error; libraries that tell of every call are told to tell of trouble only."""
    logs.configure(format=how, replica=replica)
    for chatty in ("alembic", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def admin_token(path: Path | None) -> str:
    """The token in the file, made (0600) where there is no file; none where no file is named.

    Raises `InputError` for a file that cannot be read or written.
    """
    if path is None:
        return ""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_token(path)
    except OSError as error:
        raise InputError(f"the token file {path} cannot be made: {error.strerror}") from error
    token = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w") as file:
        file.write(token)
    return token


def read_token(path: Path) -> str:
    """A bearer token from its file. Raises `InputError`."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise InputError(f"the token file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the token file {path} holds what is no token") from error
    if len(token) < MIN_TOKEN or any(character.isspace() for character in token):
        raise InputError(f"the token file {path} holds what is no token: expected {MIN_TOKEN} characters or more")
    return token


def _check_certificate(certificate: Path, key: Path) -> None:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"--tls-cert {certificate}, --tls-key {key}: not usable together ({error})") from error
