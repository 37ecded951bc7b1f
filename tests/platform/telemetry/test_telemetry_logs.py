"""One line an event, with what is bound, and without what is secret."""

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from helios.telemetry import logs

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """The root logger and structlog belong to the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def lines() -> Lines:
    """Logs as JSON from here on; gives what was logged since the last call."""
    stream = io.StringIO()
    logs.configure(format="json", level="info", replica="r1", stream=stream)

    def read() -> list[dict[str, Any]]:
        text = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        return [json.loads(line) for line in text.splitlines()]

    return read


def test_standard_loggers_and_structlog_write_the_same_lines(lines: Lines) -> None:
    """Old calls keep working, with their arguments and extras."""
    logging.getLogger("helios.control").warning("cell %s: %d", "east", 3, extra={"job": "train"})
    structlog.get_logger("helios.api").info("answered", status=200)
    first, second = lines()
    assert (first["event"], first["level"], first["logger"]) == ("cell east: 3", "warning", "helios.control")
    assert (first["job"], first["replica"]) == ("train", "r1")
    assert (second["event"], second["status"], second["logger"]) == ("answered", 200, "helios.api")
    assert second["timestamp"].endswith("Z")


def test_level_holds_back_what_is_below_it(lines: Lines) -> None:
    """Debug lines are not there at level info."""
    logging.getLogger("helios").debug("hidden")
    structlog.get_logger("helios").debug("hidden")
    assert lines() == []


def test_setting_up_again_prints_each_line_once(lines: Lines) -> None:
    """The second set-up takes the place of the first."""
    again = io.StringIO()
    logs.configure(format="json", stream=again)
    logging.getLogger("helios").info("once")
    assert lines() == []
    assert len(again.getvalue().splitlines()) == 1


def test_what_is_bound_is_on_every_line_of_its_block_and_on_no_other(lines: Lines) -> None:
    """Also on lines of other modules' standard loggers; empty fields are left out."""
    with logs.bound(request_id="q1", job=""), logs.bound(cell="east"):
        logging.getLogger("helios.store").info("in")
    logging.getLogger("helios.store").info("out")
    inside, outside = lines()
    assert (inside["request_id"], inside["cell"]) == ("q1", "east")
    assert "job" not in inside
    assert "request_id" not in outside


def test_replica_is_on_lines_of_every_thread(lines: Lines) -> None:
    """It belongs to the process, not to a context."""
    thread = threading.Thread(target=logging.getLogger("helios").info, args=("from a thread",))
    thread.start()
    thread.join(timeout=10)
    (line,) = lines()
    assert line["replica"] == "r1"


@pytest.mark.parametrize(
    ("text", "secret", "kept"),
    [
        ("token hls_ab12_c2VjcmV0LXBhcnQ was used", "c2VjcmV0LXBhcnQ", "hls_ab12_"),
        ("{'Authorization': 'Bearer abcdefgh12345'}", "abcdefgh12345", "Authorization"),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz", "Authorization"),
        ("(b'authorization', b'Bearer zzzzzzzz9')", "zzzzzzzz9", "authorization"),
        ("sent bearer abcdefgh12345", "abcdefgh12345", "sent"),
        ("got eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln as id", "eyJzdWIiOiJhIn0", "as id"),
        ("GET /v1/jobs/watch?access_token=abc123&after=4", "abc123", "&after=4"),
        ("postgresql+psycopg://helios:hunter22@db:5432/helios", "hunter22", "@db:5432/helios"),
    ],
)
def test_credentials_do_not_get_out(text: str, secret: str, kept: str) -> None:
    """Whatever form they come in; the rest of the line stays readable."""
    cleaned = logs.redact(text)
    assert secret not in cleaned
    assert kept in cleaned
    assert logs.MASK in cleaned
    assert logs.redact(cleaned) == cleaned


@pytest.mark.parametrize("text", ["hls is a prefix", "12 tokens_per_second", "the bearer of news", "http://a:80/b"])
def test_what_is_no_credential_stays(text: str) -> None:
    """Nothing is masked for looking a little like one."""
    assert logs.redact(text) == text


@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_are_masked_in_arguments_fields_and_tracebacks(form: logs.Format) -> None:
    """The finished line is looked at, so there is no other way out; local variables are never printed."""
    stream = io.StringIO()
    logs.configure(format=form, stream=stream)
    local = "a-local-secret"
    try:
        json.loads("{}")[local[:0]]
    except KeyError:
        structlog.get_logger("helios").exception("failed", header="Authorization: Bearer abcdefgh12345")
    logging.getLogger("helios").error("refused %s", "hls_ab12_c2VjcmV0", exc_info=ValueError("hls_cd34_ZWxzZQ"))
    text = stream.getvalue()
    assert "Traceback" in text
    for secret in ("abcdefgh12345", "c2VjcmV0", "ZWxzZQ", "a-local-secret"):
        assert secret not in text


def test_console_is_plain_where_nobody_sees_colours() -> None:
    """No escape codes in a file."""
    stream = io.StringIO()
    logs.configure(stream=stream)
    logging.getLogger("helios").warning("hello")
    assert "hello" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_servers_of_the_web_log_through_the_same_handler(lines: Lines) -> None:
    """What uvicorn had set up for itself is gone."""
    server = logging.getLogger("uvicorn.access")
    server.addHandler(logging.StreamHandler(io.StringIO()))
    server.propagate = False
    server.setLevel(logging.INFO)  # a server that ran in this process may have raised it
    server.disabled = False
    stream = io.StringIO()
    logs.configure(format="json", stream=stream)
    server.info('%s - "%s"', "127.0.0.1", "GET /v1/jobs?token=abc")
    assert json.loads(stream.getvalue())["event"] == '127.0.0.1 - "GET /v1/jobs?token=[redacted]"'
    assert lines() == []


def test_level_that_is_none_is_refused() -> None:
    """A typo does not silence the logs."""
    with pytest.raises(ValueError, match="LOUD"):
        logs.configure(level="loud")
