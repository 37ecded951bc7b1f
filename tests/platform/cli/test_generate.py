"""`helios generate` against an endpoint that speaks the videos API, and what it leaves behind when it fails."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from helios.cli import generate

MP4 = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 40


class Endpoint:
    """A scripted endpoint: what it was sent is kept, what it answers is set by the test."""

    def __init__(self) -> None:
        self.forms: list[dict[str, Any]] = []
        self.consents: list[dict[str, Any]] = []
        self.withdrawn: list[str] = []
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.statuses = ["queued", "in_progress", "completed"]
        self.content = MP4
        self.app = FastAPI()
        self._routes(self.app)

    def _routes(self, app: FastAPI) -> None:
        @app.post("/v1/consents", status_code=201)
        async def consent(request: Request) -> dict[str, Any]:
            self.consents.append(await request.json())
            return {"id": f"consent_{len(self.consents)}"}

        @app.delete("/v1/consents/{consent_id}")
        async def withdraw(consent_id: str) -> dict[str, Any]:
            self.withdrawn.append(consent_id)
            return {"id": consent_id, "withdrawn": True}

        @app.get("/v1/consents")
        async def consents() -> dict[str, Any]:
            return {"object": "list", "data": [{"id": "consent_1", **item} for item in self.consents]}

        @app.post("/v1/videos", response_model=None)
        async def create(request: Request) -> dict[str, Any] | JSONResponse:
            async with request.form() as form:
                self.forms.append(
                    {key: await value.read() if not isinstance(value, str) else value for key, value in form.items()}
                )
            if self.refusal:
                return JSONResponse({"error": self.refusal[1]}, status_code=self.refusal[0])
            return {"id": "video_1", "object": "video", "status": "queued", "progress": 0}

        @app.get("/v1/videos/video_1")
        async def poll() -> dict[str, Any]:
            status = self.statuses.pop(0)
            error = {"code": "x", "message": "the decoder gave up"} if status == "failed" else None
            return {"id": "video_1", "status": status, "progress": 50, "error": error}

        @app.get("/v1/videos/video_1/content")
        async def content() -> Response:
            return Response(self.content, media_type="video/mp4")


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    clip, speech = tmp_path / "clip.mp4", tmp_path / "speech.flac"
    clip.write_bytes(b"a clip")
    speech.write_bytes(b"some speech")
    return {"clip": clip, "speech": speech, "out": tmp_path / "made" / "out.mp4"}


@pytest.fixture
def command(endpoint: Endpoint, files: dict[str, Path], serve: Any, cli: Any) -> Any:
    files["out"].parent.mkdir()
    url = serve(endpoint.app)

    def call(*extra: str | Path, speech: bool = True) -> Any:
        words = ["generate", "--reference", files["clip"], "--endpoint", url, "-o", files["out"]]
        return cli(*words, *(("--audio", files["speech"]) if speech else ()), *extra)

    return call


def test_speech_and_reference_become_the_endpoints_video(
    command: Any, endpoint: Endpoint, files: dict[str, Path]
) -> None:
    """The output file holds exactly what the endpoint made of exactly what was sent."""
    result = command("--consent", "consent_9", "--prompt", "a studio", "--seed", "7")
    assert result.code == 0, result.err
    assert files["out"].read_bytes() == MP4
    assert endpoint.forms == [
        {
            "video_reference": b"a clip",
            "audio_reference": b"some speech",
            "consent_id": "consent_9",
            "prompt": "a studio",
            "seed": "7",
        }
    ]
    assert endpoint.consents == []


def test_without_consent_one_is_recorded_and_said(command: Any, endpoint: Endpoint, files: dict[str, Path]) -> None:
    """Without --consent the user is told what they attest, and the record is bound to the file's SHA-256."""
    result = command()
    digest = hashlib.sha256(b"a clip").hexdigest()
    assert result.code == 0, result.err
    assert "you (" in result.err
    assert "attest" in result.err
    assert digest in result.err
    assert "consent_1" in result.err
    assert endpoint.consents[0]["reference_sha256"] == digest
    assert endpoint.forms[0]["consent_id"] == "consent_1"


def test_consent_that_no_video_came_of_is_withdrawn(command: Any, endpoint: Endpoint) -> None:
    """Refused media leave no record behind that the command made itself; the user's own record stays."""
    endpoint.refusal = (400, {"message": "no frames", "type": "t", "param": None, "code": "c"})
    assert command().code == 2
    assert endpoint.withdrawn == ["consent_1"]
    assert command("--consent", "consent_1").code == 2
    assert endpoint.withdrawn == ["consent_1"]


def test_text_is_sent_with_its_voice(command: Any, endpoint: Endpoint) -> None:
    """--text and --voice go to the endpoint in place of audio."""
    result = command("--text", "Good morning.", "--voice", "en-us", "--consent", "c", speech=False)
    assert result.code == 0, result.err
    assert endpoint.forms[0]["text"] == "Good morning."
    assert endpoint.forms[0]["voice"] == "en-us"
    assert "audio_reference" not in endpoint.forms[0]


def test_existing_output_is_kept_unless_forced(command: Any, endpoint: Endpoint, files: dict[str, Path]) -> None:
    """An existing file is refused before anything is sent; --force replaces it."""
    files["out"].write_bytes(b"precious")
    refused = command("--consent", "c")
    assert refused.code == 2
    assert "--force" in refused.err
    assert files["out"].read_bytes() == b"precious"
    assert endpoint.forms == []
    assert command("--consent", "c", "--force").code == 0
    assert files["out"].read_bytes() == MP4


@pytest.mark.parametrize(
    ("status", "code"), [(400, 2), (403, 2), (413, 2), (422, 2), (429, 3), (503, 3), (500, 4), (507, 5)]
)
def test_refusal_of_the_endpoint_is_one_line(
    command: Any, endpoint: Endpoint, files: dict[str, Path], status: int, code: int
) -> None:
    """The endpoint's own message reaches the user with the right exit code, and no file is left."""
    endpoint.refusal = (
        status,
        {"message": "the video has no frames", "type": "t", "param": "video_reference", "code": "c"},
    )
    result = command("--consent", "c")
    assert result.code == code
    assert "Error: the video has no frames (video_reference)" in result.err
    assert list(files["out"].parent.iterdir()) == []


def test_failed_video_exits_6_and_leaves_nothing(command: Any, endpoint: Endpoint, files: dict[str, Path]) -> None:
    """A video that fails while it is made is the work's failure, said in the endpoint's words."""
    endpoint.statuses = ["queued", "failed"]
    result = command("--consent", "c")
    assert result.code == 6
    assert "the decoder gave up" in result.err
    assert list(files["out"].parent.iterdir()) == []


def test_broken_download_leaves_nothing(
    command: Any, endpoint: Endpoint, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that fails half-way leaves neither the file nor a temporary one."""

    def broken(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("helios.cli.videos.VideoClient.download", broken)
    result = command("--consent", "c")
    assert result.code == 5
    assert "no space" in result.err
    assert list(files["out"].parent.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--reference", "missing.mp4", "--audio", "speech.flac"], "there is no file missing.mp4"),
        (["--reference", "empty.mp4", "--audio", "speech.flac"], "empty.mp4 is empty"),
        (["--reference", ".", "--audio", "speech.flac"], ". is not a file"),
        (["--reference", "clip.mp4"], "--audio FILE or --text WORDS"),
        (["--reference", "clip.mp4", "--audio", "speech.flac", "--text", "x"], "--audio FILE or --text WORDS"),
        (["--reference", "clip.mp4", "--audio", "speech.flac", "--voice", "en"], "--voice"),
        (["--reference", "clip.mp4", "--text", "  "], "no words"),
        (["--reference", "clip.mp4", "--audio", "speech.flac", "-o", "none/out.mp4"], "there is no folder none"),
        (["--reference", "clip.mp4", "--audio", "speech.flac", "--endpoint", "avatar"], "http://"),
    ],
)
def test_wrong_input_is_refused_before_upload(cli: Any, files: dict[str, Path], words: list[str], said: str) -> None:
    """What the user gave wrong is one line and exit code 2, with no request made."""
    Path("empty.mp4").touch()
    output = [] if "-o" in words else ["-o", "out.mp4"]
    where = [] if "--endpoint" in words else ["--endpoint", "http://127.0.0.1:9"]
    result = cli("generate", *words, *output, *where)
    assert result.code == 2
    assert said in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("stated", [True, False])
def test_upload_over_the_limit_is_refused_early(
    cli: Any, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, stated: bool
) -> None:
    """A file over the service's stated limit, or over any sensible one, is neither hashed nor sent."""
    monkeypatch.setattr(generate, "_endpoint_of", lambda _: ("http://127.0.0.1:9", 64 * 2**20))
    with files["clip"].open("wb") as file:
        file.truncate(10 * 2**30)
    where = () if stated else ("--endpoint", "http://127.0.0.1:9")
    result = cli("generate", "--reference", "clip.mp4", "--audio", "speech.flac", "-o", "out.mp4", *where)
    assert result.code == 2
    assert f"limit of {'64' if stated else '1,024'} MiB" in result.err


def test_endpoint_that_does_not_answer_exits_3(cli: Any, files: dict[str, Path]) -> None:
    """No endpoint there: exit code 3 and where it was looked for."""
    result = cli(
        "generate",
        "--reference",
        "clip.mp4",
        "--audio",
        "speech.flac",
        "-o",
        "o.mp4",
        "--endpoint",
        "http://127.0.0.1:9",
    )
    assert result.code == 3
    assert "http://127.0.0.1:9" in result.err


def test_consents_are_created_and_listed(endpoint: Endpoint, cli: Any, serve: Any, files: dict[str, Path]) -> None:
    """`consent create` prints the id and nothing else on stdout; `consent list` shows it."""
    url = serve(endpoint.app)
    created = cli("consent", "create", "--subject", "Ada", "--reference", "clip.mp4", "--endpoint", url)
    assert (created.code, created.out.strip()) == (0, "consent_1"), created.err
    assert endpoint.consents[0]["subject"] == "Ada"
    listed = cli("consent", "list", "--endpoint", url)
    assert "consent_1" in listed.out
    assert "Ada" in listed.out
