"""The endpoint, without Ray."""

import io
import shutil
from collections.abc import Callable
from typing import Any

import av
import pytest
from fastapi.testclient import TestClient

from helios_jobs.serve import speech

Finished = Callable[..., dict[str, Any]]


def _post(client: TestClient, consent: str, clip: bytes, sound: bytes | None, **fields: str) -> Any:
    files = {"video_reference": ("clip.mp4", clip, "video/mp4")}
    if sound is not None:
        files["audio_reference"] = ("speech.wav", sound, "audio/wav")
    headers = {"Idempotency-Key": fields.pop("key")} if "key" in fields else {}
    return client.post("/v1/videos", files=files, data={"consent_id": consent, **fields}, headers=headers)


@pytest.fixture
def video(client: TestClient, consent: str, clip: bytes, sound: bytes, finished: Finished) -> dict[str, Any]:
    answer = _post(client, consent, clip, sound, prompt="a person talks", seed="3")
    assert answer.status_code == 200, answer.text
    return finished(client, answer.json()["id"])


def test_clip_and_speech_become_a_video_with_sound(client: TestClient, video: dict[str, Any]) -> None:
    """The whole way: queued, made, and an MP4 of H.264 and AAC as long as the speech."""
    assert (video["status"], video["progress"], video["error"]) == ("completed", 100, None)
    assert (video["seconds"], video["seed"], video["prompt"]) == (1.0, 3, "a person talks")
    assert (video["model"], video["model_version"], video["object"]) == ("tiny-random", "7", "video")
    content = client.get(f"/v1/videos/{video['id']}/content")
    assert content.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(content.content), "r") as container:
        assert container.duration is not None
        assert abs(container.duration / av.time_base - 1.0) <= 0.04
        assert [stream.codec_context.name for stream in container.streams] == ["h264", "aac"]
        assert container.streams.video[0].width == 256


def test_same_seed_makes_the_same_video(
    client: TestClient, consent: str, clip: bytes, sound: bytes, finished: Finished
) -> None:
    """Reference, speech and seed determine the file to the byte; another seed does not give it."""
    contents = []
    for seed in ("3", "3", "4"):
        made = finished(client, _post(client, consent, clip, sound, prompt="a person talks", seed=seed).json()["id"])
        contents.append(client.get(f"/v1/videos/{made['id']}/content").content)
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_content_comes_in_ranges(client: TestClient, video: dict[str, Any]) -> None:
    """A player can seek: 206 for a part, 416 with the envelope behind the end, HEAD for the length."""
    url = f"/v1/videos/{video['id']}/content"
    whole = client.get(url).content
    part = client.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole)}"
    behind = client.get(url, headers={"Range": f"bytes={len(whole)}-"})
    assert (behind.status_code, behind.json()["error"]["code"]) == (416, "range_not_satisfiable")
    assert int(client.head(url).headers["content-length"]) == len(whole)


def test_deleted_video_is_gone_with_its_media(client: TestClient, video: dict[str, Any]) -> None:
    answer = client.delete(f"/v1/videos/{video['id']}")
    assert answer.json() == {"id": video["id"], "object": "video.deleted", "deleted": True}
    for again in (client.get, client.delete):
        assert again(f"/v1/videos/{video['id']}").status_code == 404
    assert client.get(f"/v1/videos/{video['id']}/content").status_code == 404


def test_videos_are_listed_in_pages(
    client: TestClient, consent: str, clip: bytes, sound: bytes, finished: Finished
) -> None:
    """Newest first by default; `after` and `limit` walk through all without a gap."""
    ids = [_post(client, consent, clip, sound, seed=str(seed)).json()["id"] for seed in range(3)]
    first = client.get("/v1/videos", params={"limit": 2}).json()
    assert ([item["id"] for item in first["data"]], first["has_more"]) == (ids[:0:-1], True)
    rest = client.get("/v1/videos", params={"limit": 2, "after": first["last_id"]}).json()
    assert ([item["id"] for item in rest["data"]], rest["has_more"]) == (ids[:1], False)
    oldest = client.get("/v1/videos", params={"order": "asc"}).json()
    assert [item["id"] for item in oldest["data"]] == ids
    for video_id in ids:
        finished(client, video_id)


def test_idempotency_key_makes_one_video(client: TestClient, consent: str, clip: bytes, sound: bytes) -> None:
    """The same key and content give the same video; the key with other content is a conflict."""
    first = _post(client, consent, clip, sound, key="abc", seed="1").json()["id"]
    assert _post(client, consent, clip, sound, key="abc", seed="1").json()["id"] == first
    other = _post(client, consent, clip, sound, key="abc", seed="2")
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert len(client.get("/v1/videos").json()["data"]) == 1


@pytest.mark.skipif(shutil.which(speech.PROGRAM) is None, reason="espeak-ng is not installed")
@pytest.mark.parametrize("voice", [{}, {"voice": "en-us"}, {"voice": "de"}])
def test_text_is_spoken(
    client: TestClient, consent: str, clip: bytes, finished: Finished, voice: dict[str, str]
) -> None:
    """Text gives a video as long as espeak-ng speaks, in its own English or the voice that is named."""
    made = finished(client, _post(client, consent, clip, None, text="Good morning.", **voice).json()["id"])
    assert made["status"] == "completed"
    assert 0.5 < made["seconds"] < 3


def test_consents_are_recorded_and_read_back(client: TestClient, consent: str) -> None:
    given = {
        "subject": "B",
        "granted_by": "B",
        "statement": "yes",
        "reference_sha256": "a" * 64,
        "expires_at": "2100-01-01T00:00:00Z",
    }
    created = client.post("/v1/consents", json=given)
    assert created.status_code == 201
    assert created.json()["expires_at"] == 4_102_444_800
    assert client.get(f"/v1/consents/{created.json()['id']}").json() == created.json()
    assert [item["id"] for item in client.get("/v1/consents").json()["data"]] == [consent, created.json()["id"]]


def test_model_and_health_are_told(client: TestClient) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert [(model["id"], model["version"]) for model in listed] == [("tiny-random", "7")]
    assert client.get("/healthz").json() == {"status": "ok"}
    form = client.get("/v1/openapi.json").json()["paths"]["/v1/videos"]["post"]["requestBody"]
    assert "video_reference" in form["content"]["multipart/form-data"]["schema"]["properties"]


def test_reference_audio_may_be_in_a_video_file(
    client: TestClient, consent: str, clip: bytes, make_sound: Callable[..., bytes], finished: Finished
) -> None:
    """Speech is taken from the sound track of whatever file holds one."""
    track = make_sound(codec="flac", container="matroska", rate=22_050, channels=2)
    made = finished(client, _post(client, consent, clip, track).json()["id"])
    assert (made["status"], made["seconds"]) == ("completed", 1.0)


def test_withdrawn_consent_allows_nothing_and_is_kept_where_it_was_used(
    client: TestClient, consent: str, clip: bytes, sound: bytes
) -> None:
    """An unused record goes; one that a video was made under stays, expired; neither allows another video."""
    unused = client.post("/v1/consents", json={"subject": "B", "granted_by": "B", "statement": "Yes."}).json()["id"]
    assert client.delete(f"/v1/consents/{unused}").json()["kept"] is False
    assert client.get(f"/v1/consents/{unused}").status_code == 404
    assert client.delete(f"/v1/consents/{unused}").status_code == 404

    assert _post(client, consent, clip, sound, seed="1").is_success
    assert client.delete(f"/v1/consents/{consent}").json()["kept"] is True
    assert client.get(f"/v1/consents/{consent}").json()["expires_at"] is not None
    for withdrawn in (unused, consent):
        assert _post(client, withdrawn, clip, sound, seed="2").status_code == 403
