"""What the endpoint refuses: each with its status, its code and the one envelope, and nothing left behind."""

import asyncio
import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient

from helios_jobs.serve import http, speech
from helios_jobs.serve.http import create_app
from helios_jobs.serve.service import VideoService

Make = Callable[..., bytes]
SAID = "Grüße, 世界"
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "videos-api.md"


def _left_behind(tmp_path: Path) -> list[str]:
    job = tmp_path / "job"
    return [path.name for path in [*job.glob("videos/*"), *job.glob("incoming/*/*"), *job.glob("keys/*")]]


def _assert_envelope(answer: Any, status: int, code: str, param: str | None) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param), error
    assert error["message"]
    assert "Traceback" not in answer.text


def _need_espeak() -> None:
    if shutil.which(speech.PROGRAM) is None:
        pytest.skip(f"{speech.PROGRAM} is not installed")


def _headless(clip: bytes) -> bytes:
    """The clip with every byte of its media zeroed: the index says there are frames, and there is none."""
    at = clip.index(b"mdat") + 4
    size = int.from_bytes(clip[at - 8 : at - 4], "big") - 8
    return clip[:at] + bytes(size) + clip[at + size :]


@pytest.mark.parametrize(
    ("case", "status", "code", "param"),
    [
        ("empty video", 400, "empty_file", "video_reference"),
        ("text named .mp4", 400, "unreadable_media", "video_reference"),
        ("video without a readable frame", 400, "no_readable_frame", "video_reference"),
        ("sound as video", 400, "no_video_stream", "video_reference"),
        ("video too long", 413, "video_too_long", "video_reference"),
        ("video too large", 413, "too_many_pixels", "video_reference"),
        ("no video", 400, "missing_field", "video_reference"),
        ("video as audio", 400, "no_audio_stream", "audio_reference"),
        ("audio of 0 s", 400, "audio_too_short", "audio_reference"),
        ("audio too long", 413, "audio_too_long", "audio_reference"),
        ("empty audio", 400, "empty_file", "audio_reference"),
        ("neither audio nor text", 400, "missing_field", "audio_reference"),
        ("audio and text", 400, "missing_field", "audio_reference"),
        ("unknown voice", 400, "unknown_voice", "voice"),
        ("text without words", 400, "empty_text", "text"),
        ("text too long", 413, "text_too_long", "text"),
        ("field too long", 413, "field_too_long", "prompt"),
        ("prompt too long", 400, "prompt_too_long", "prompt"),
        ("bad seed", 400, "invalid_seed", "seed"),
        ("unknown field", 400, "unknown_field", "promt"),
        ("unknown model", 404, "not_found", None),
        ("no consent", 403, "forbidden", None),
        ("unknown consent", 403, "forbidden", None),
        ("consent that is a path", 403, "forbidden", None),
        ("over the upload limit", 413, "request_too_large", None),
    ],
)
def test_bad_request_is_refused_with_a_reason(
    client: TestClient,
    consent: str,
    tmp_path: Path,
    make_clip: Make,
    make_sound: Make,
    *,
    case: str,
    status: int,
    code: str,
    param: str | None,
) -> None:
    """Each bad request gets its 4xx, and no folder, temporary file or queued video stays."""
    if "voice" in case or "without words" in case:
        _need_espeak()
    clip, sound = make_clip(frames=10), make_sound(seconds=0.5)
    changes: dict[str, dict[str, bytes | str | None]] = {
        "empty video": {"video_reference": b""},
        "text named .mp4": {"video_reference": b"this is not a video, whatever its name says\n" * 50},
        "video without a readable frame": {"video_reference": _headless(clip)},
        "sound as video": {"video_reference": sound},
        "video too long": {"video_reference": make_clip(frames=140)},
        "video too large": {"video_reference": make_clip(width=640, height=480, frames=2)},
        "no video": {"video_reference": None},
        "video as audio": {"audio_reference": clip},
        "audio of 0 s": {"audio_reference": make_sound(seconds=0)},
        "audio too long": {"audio_reference": make_sound(seconds=7)},
        "empty audio": {"audio_reference": b""},
        "neither audio nor text": {"audio_reference": None},
        "audio and text": {"text": "hello"},
        "unknown voice": {"audio_reference": None, "text": "hello", "voice": "xx-klingon"},
        "text without words": {"audio_reference": None, "text": "  "},
        "text too long": {"audio_reference": None, "text": "a" * 5000},
        "field too long": {"prompt": "a" * 40_000},
        "prompt too long": {"prompt": "a" * 2001},
        "bad seed": {"seed": "-1"},
        "unknown field": {"promt": "hello"},
        "unknown model": {"model": "avatar-huge"},
        "no consent": {"consent_id": None},
        "unknown consent": {"consent_id": "consent_" + "0" * 24},
        "consent that is a path": {"consent_id": "../videos/x"},
        "over the upload limit": {"audio_reference": bytes(3 * 2**20)},
    }
    parts = {"video_reference": clip, "audio_reference": sound, "consent_id": consent, **changes[case]}
    files = {name: (f"{name}.mp4", data) for name, data in parts.items() if isinstance(data, bytes)}
    data = {name: value for name, value in parts.items() if isinstance(value, str)}
    answer = client.post("/v1/videos", files=files or None, data=data)
    _assert_envelope(answer, status, code, param)
    assert _left_behind(tmp_path) == []


def test_full_disk_is_a_507_and_leaves_nothing(
    client: TestClient, consent: str, clip: bytes, sound: bytes, tmp_path: Path, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the request cannot be stored, the caller hears of it and no half of it stays."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("helios_jobs.serve.records.np.save", full)
    files = {"video_reference": clip, "audio_reference": sound}
    answer = client.post("/v1/videos", files=files, data={"consent_id": consent})
    _assert_envelope(answer, 507, "no_space", None)
    assert _left_behind(tmp_path) == []


def test_full_disk_is_said_of_every_record(
    client: TestClient, consent: str, clip: bytes, sound: bytes, tmp_path: Path, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consent or an Idempotency-Key that cannot be written is a 507 too, and no video is made that was refused."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("helios_jobs.serve.records.write_atomically", full)
    terms = {"subject": "A", "granted_by": "A", "statement": "yes"}
    _assert_envelope(client.post("/v1/consents", json=terms), 507, "no_space", None)
    files = {"video_reference": clip, "audio_reference": sound}
    answer = client.post("/v1/videos", files=files, data={"consent_id": consent}, headers={"Idempotency-Key": "k"})
    _assert_envelope(answer, 507, "no_space", None)
    assert _left_behind(tmp_path) == []


def test_media_types_are_read_in_any_case(client: TestClient, consent: str, make_clip: Make) -> None:
    """A form larger than a JSON body may be is a form, however its media type is written."""
    head = f'--X\r\ncontent-disposition: form-data; name="consent_id"\r\n\r\n{consent}\r\n--X\r\n'
    head += 'content-disposition: form-data; name="video_reference"; filename="a"\r\n\r\n'
    body = head.encode() + make_clip(frames=5) + bytes(70_000) + b"\r\n--X--\r\n"
    answer = client.post("/v1/videos", content=body, headers={"content-type": "Multipart/Form-Data; boundary=X"})
    _assert_envelope(answer, 400, "missing_field", "audio_reference")


def test_every_code_a_client_may_meet_is_documented() -> None:
    """The reference page has each code that the service's source can answer with."""
    if not PAGE.exists():
        pytest.skip("docs/ is part of the checkout, not of an installed wheel")
    documented = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), flags=re.MULTILINE))
    source = "".join(path.read_text() for path in Path(str(http.__file__)).parent.glob("*.py"))
    used = {*re.findall(r'reason="(\w+)"', source), *re.findall(r'\.(?:error|limit|_fail)\(.*"(\w+)"', source)}
    derived = {"not_found", "method_not_allowed", "request_too_large", "invalid_request", "internal_error", "forbidden"}
    assert used | derived <= documented


def test_nearest_names_are_offered(client: TestClient, consent: str, clip: bytes) -> None:
    """A misspelt field is told the right one."""
    answer = client.post("/v1/videos", files={"video_referense": clip}, data={"consent_id": consent})
    assert "did you mean 'video_reference'?" in answer.json()["error"]["message"]


def test_consent_must_be_in_force_and_for_the_clip(
    client: TestClient, clip: bytes, sound: bytes, tmp_path: Path
) -> None:
    """An expired consent and one bound to another file are refused."""
    for terms in ({"expires_at": "2001-01-01T00:00:00Z"}, {"reference_sha256": "0" * 64}):
        body = {"subject": "A", "granted_by": "A", "statement": "yes", **terms}
        consent = client.post("/v1/consents", json=body).json()["id"]
        files = {"video_reference": clip, "audio_reference": sound}
        _assert_envelope(client.post("/v1/videos", files=files, data={"consent_id": consent}), 403, "forbidden", None)
    assert _left_behind(tmp_path) == []


def test_speech_from_text_without_espeak_names_the_package(
    client: TestClient, consent: str, clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the program is not installed, the answer is a 503 that says which package it is."""
    monkeypatch.setenv("PATH", "/nonexistent")
    files = {"video_reference": clip}
    answer = client.post("/v1/videos", files=files, data={"consent_id": consent, "text": "hello"})
    _assert_envelope(answer, 503, "text_to_speech_unavailable", "text")
    assert "install the package espeak-ng" in answer.json()["error"]["message"]


def test_text_of_any_language_reaches_the_program_in_any_locale(tmp_path: Path) -> None:
    """A service that runs in the C locale still hands over what it was sent, as UTF-8."""
    program = tmp_path / speech.PROGRAM
    program.write_text('#!/bin/sh\ncase "$1" in --voices) echo H; echo 5 en M en x;; *) /bin/cat > "$5";; esac\n')
    program.chmod(0o755)
    out = tmp_path / "spoken.wav"
    call = f"speak({SAID!a}, 'en', pathlib.Path({str(out)!r}))"
    code = f"import pathlib; from helios_jobs.serve.speech import speak; {call}"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PATH": str(tmp_path)}
    subprocess.run([sys.executable, "-X", "utf8=0", "-c", code], check=True, env={**os.environ, **plain})
    assert out.read_text(encoding="utf-8") == SAID


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/v2/videos", {}, 404, "not_found"),
        ("GET", "/v1/videos/video_none", {}, 404, "not_found"),
        ("GET", "/v1/videos/..%2f..%2fetc", {}, 404, "not_found"),
        ("GET", "/v1/consents/..%2f..%2fx", {}, 404, "not_found"),
        ("PUT", "/v1/videos", {}, 405, "method_not_allowed"),
        ("GET", "/v1/videos?limit=0", {}, 400, "invalid_request"),
        ("GET", "/v1/videos?after=video_none", {}, 404, "not_found"),
        ("POST", "/v1/consents", {"json": {"subject": "A"}}, 400, "invalid_request"),
        (
            "POST",
            "/v1/consents",
            {"content": b"{", "headers": {"content-type": "application/json"}},
            400,
            "invalid_request",
        ),
        ("POST", "/v1/consents", {"content": b" " * 100_000}, 413, "request_too_large"),
        ("POST", "/v1/videos", {"json": {"prompt": "x"}}, 400, "not_multipart"),
        (
            "POST",
            "/v1/videos",
            {"content": b"--x\r\nrubbish", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
            "malformed_form",
        ),
    ],
)
def test_every_error_has_the_one_envelope(
    client: TestClient, *, method: str, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    answer = client.request(method, path, **options)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


def test_error_of_our_own_making_shows_no_traceback(
    client: TestClient, make_service: Callable[..., VideoService], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the service is a 500 with the envelope, and tells the caller nothing of its inside."""
    monkeypatch.setattr("helios_jobs.serve.records.Records.consents", lambda _: 1 / 0)
    answer = client.get("/v1/consents")
    _assert_envelope(answer, 500, "internal_error", None)
    assert "division" not in answer.text


def test_chunked_upload_is_refused_at_the_limit(make_service: Callable[..., VideoService], tmp_path: Path) -> None:
    """A body that tells no length is cut off as soon as it is over the limit, with no more read than that."""
    service = make_service(maxUploadBytes="1Mi")
    sent = 0
    head = b'--x\r\ncontent-disposition: form-data; name="video_reference"; filename="a.mp4"\r\n\r\n'

    async def receive() -> dict[str, Any]:
        nonlocal sent
        body = bytes(64 * 1024) if sent else head
        sent += len(body)
        return {"type": "http.request", "body": body, "more_body": True}

    answers: list[Any] = []

    async def send(message: Any) -> None:
        answers.append(message)

    headers = [(b"content-type", b"multipart/form-data; boundary=x"), (b"transfer-encoding", b"chunked")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/videos",
        "raw_path": b"/v1/videos",
        "query_string": b"",
        "headers": headers,
        "http_version": "1.1",
        "scheme": "http",
        "server": ("test", 80),
        "client": ("test", 1),
    }
    asyncio.run(create_app(service)(scope, receive, send))
    assert answers[0]["status"] == 413
    assert sent <= 2**20 + 2 * 64 * 1024
    assert _left_behind(tmp_path) == []


@pytest.fixture
def endpoint(make_service: Callable[..., VideoService]) -> Iterator[tuple[str, int]]:
    """The application behind a real HTTP server."""
    server = uvicorn.Server(uvicorn.Config(create_app(make_service()), port=0, log_level="error", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()
        server.should_exit = True
        thread.join(30)


def test_10_gib_upload_is_refused_after_its_headers(endpoint: tuple[str, int], tmp_path: Path) -> None:
    """The length in the header is enough: the refusal comes before a byte of the body is sent."""
    with socket.create_connection(endpoint, timeout=10) as connection:
        connection.sendall(
            b"POST /v1/videos HTTP/1.1\r\nhost: test\r\ncontent-type: multipart/form-data; boundary=x\r\n"
            b"content-length: 10737418240\r\n\r\n"
        )
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"code":"request_too_large"' in answer
    assert _left_behind(tmp_path) == []


def test_client_that_leaves_half_way_leaves_nothing(endpoint: tuple[str, int], tmp_path: Path) -> None:
    """A connection that breaks during the upload takes its temporary file with it."""
    incoming = tmp_path / "job" / "incoming"
    with socket.create_connection(endpoint, timeout=10) as connection:
        connection.sendall(
            b"POST /v1/videos HTTP/1.1\r\nhost: test\r\ncontent-type: multipart/form-data; boundary=x\r\n"
            b"content-length: 100000\r\n\r\n--x\r\ncontent-disposition: form-data; name=video_reference\r\n\r\nabc"
        )
        _until(lambda: any(incoming.glob("*/*")))
    _until(lambda: not any(incoming.glob("*/*")))


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
