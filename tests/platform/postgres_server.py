"""A PostgreSQL server of one's own: in a folder, on a Unix socket in that folder; ended by its handle.

For tests, benchmarks and drills: `with postgres_server(folder, fsync=False) as url: ...`, and `fresh_database(url)`.
"""

import os
import pwd
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

VERSIONED = Path("/usr/lib/postgresql")
ABSENT = "PostgreSQL is not installed: `make system` installs it"
START_S = 60.0
SETTINGS = {"listen_addresses": "", "max_connections": "200", "shared_buffers": "64MB"}
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@contextmanager
def postgres_server(folder: Path, *, fsync: bool, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Make a cluster in `folder`, serve it, give the URL of its database `postgres`; take it away afterwards.

    Run by root, the server is the user `postgres`, who must be able to reach the folder.

    Raises:
        RuntimeError: PostgreSQL is not installed, or did not start; with what it said.
    """
    data = folder / "postgres"
    data.mkdir(parents=True)
    user = _owner(data)
    _run(user, [_program("initdb"), "--pgdata", data, "--username=helios", "--auth=trust", "--no-locale", "-E", "UTF8"])
    given = {**SETTINGS, **({} if fsync else NOT_DURABLE), **(settings or {})}
    options = [option for name, value in given.items() for option in ("-c", f"{name}={value}")]
    command = [_program("postgres"), "-D", data, "-k", data, *options]
    log = data / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen([str(part) for part in command], stdout=output, stderr=output, **_as(user))
    try:
        url = f"postgresql://helios@/postgres?host={data}"
        _wait_until_ready(url, server, log)
        yield url
    finally:
        server.send_signal(signal.SIGINT)  # fast shutdown: ends sessions, then itself
        try:
            server.wait(START_S)
        finally:
            server.kill()
            server.wait()
        shutil.rmtree(data)


def fresh_database(url: str, *, template: str = "template0") -> str:
    """Make a database on the server of `url`, empty or a copy of `template`; its URL."""
    name = f"helios_{uuid.uuid4().hex}"
    command = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(command)
    return at_database(url, name)


def drop_database(url: str) -> None:
    """Take a database away, whoever is connected to it."""
    name = urlsplit(url).path.removeprefix("/")
    with psycopg.connect(at_database(url, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def at_database(url: str, name: str) -> str:
    """The URL of another database on the same server."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def _program(name: str) -> Path:
    installed = sorted(VERSIONED.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = installed[-1] if installed else shutil.which(name)
    if found is None:
        raise RuntimeError(ABSENT)
    return Path(found)


def _owner(data: Path) -> str | None:
    """Who runs the server: PostgreSQL refuses root, so root hands the folder to `postgres`."""
    if os.geteuid() != 0:
        return None
    try:
        postgres = pwd.getpwnam("postgres")
    except KeyError as error:
        raise RuntimeError(ABSENT) from error
    os.chown(data, postgres.pw_uid, postgres.pw_gid)
    return "postgres"


def _as(user: str | None) -> dict[str, Any]:
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}


def _run(user: str | None, command: list[object]) -> None:
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **_as(user))
    if ended.returncode:
        raise RuntimeError(f"{command[0]} failed: {ended.stderr.strip()}")


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text().strip()}")
