"""The Ray Serve application."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from helios.errors import InputError
from helios_jobs.serve.app import build
from helios_jobs.serve.model import load_model


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Deployed:
    url: str
    program: subprocess.Popen[str]

    def tell(self, command: str) -> None:
        assert self.program.stdin is not None
        self.program.stdin.write(f"{command}\n")
        self.program.stdin.flush()
        self.expect("done")

    def expect(self, word: str) -> None:
        assert self.program.stdout is not None
        while (line := self.program.stdout.readline()).strip() != word:
            assert line, "the program that deploys has ended"


@pytest.fixture
def deployed(ray_cluster: Any, bundle: Path, tmp_path: Path) -> Iterator[Deployed]:
    """The application on the session's Ray, with the arguments that the cell's driver gives."""
    port = _free_port()
    args = {
        "name": "avatar",
        "model": str(bundle),
        "job_dir": str(tmp_path / "job"),
        "config": {"maxUploadBytes": "8Mi"},
        "resources": {"cpus": 0.5, "memory": "512Mi", "accelerators": None},
        "replicas": 1,
        "epoch": 1,
    }
    command = [sys.executable, str(Path(__file__).with_name("serve_program.py")), json.dumps([port, args])]
    env = {**os.environ, **ray_cluster.env}
    with subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        running = Deployed(f"http://127.0.0.1:{port}/avatar", program)
        try:
            running.expect("ready")
            yield running
        finally:
            program.communicate(timeout=60)


@pytest.mark.ray
def test_video_is_made_over_http_and_a_killed_replica_loses_none(
    deployed: Deployed, clip: bytes, sound: bytes, finished: Callable[..., dict[str, Any]]
) -> None:
    """A video comes out of Ray Serve; with the replica killed behind accepted requests, all of them still do."""
    with httpx.Client(base_url=deployed.url, timeout=60) as client:
        terms = {"subject": "A", "granted_by": "A", "statement": "yes"}
        consent = client.post("/v1/consents", json=terms).json()["id"]

        def post() -> str:
            files = {"video_reference": clip, "audio_reference": sound}
            answer = client.post("/v1/videos", files=files, data={"consent_id": consent})
            assert answer.status_code == 200, answer.text
            return str(answer.json()["id"])

        first = finished(client, post())
        assert first["status"] == "completed"
        content = client.get(f"/v1/videos/{first['id']}/content")
        assert content.headers["content-type"] == "video/mp4"
        too_large = client.post("/v1/videos", files={"video_reference": bytes(9 * 2**20)})
        assert (too_large.status_code, too_large.json()["error"]["code"]) == (413, "request_too_large")

        accepted = [post() for _ in range(3)]
        deployed.tell("kill")
        assert [finished(client, video_id)["status"] for video_id in accepted] == ["completed"] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replicas": 2}, "one replica"),
        ({"model": None}, "names no model"),
        ({"config": {"maxUploadBytes": "lots"}}, "maxUploadBytes"),
        ({"config": {"maxUplodBytes": "1Mi"}}, "maxUplodBytes"),
        ({"resources": {"cpus": "many"}}, "cpus"),
    ],
)
def test_arguments_it_cannot_serve_with_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """What is wrong is said before anything is deployed."""
    args = {"model": str(tmp_path), "job_dir": str(tmp_path), "config": {}, "replicas": 1, **change}
    with pytest.raises(InputError, match=message):
        build(args)


def test_bundle_is_found_in_a_folder_or_in_its_bundle(bundle: Path, tmp_path: Path) -> None:
    """Training registers a folder that holds `bundle/`; a bundle itself serves as well."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "bundle").symlink_to(bundle)
    for folder in (bundle, tmp_path / "model"):
        assert load_model(str(folder), downloads=tmp_path / "downloads").pipeline.size == 16
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no model bundle"):
        load_model(str(tmp_path / "empty"), downloads=tmp_path / "downloads")


def test_registered_model_is_found_by_its_alias(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`models:/name@alias` is resolved to its version; one that nobody registered, or no alias, is refused."""
    import mlflow

    monkeypatch.chdir(tmp_path)  # whatever MLflow thinks it must leave in the working folder
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    shutil.copytree(bundle, tmp_path / "model" / "bundle")
    client.create_registered_model("avatar-tiny")
    version = client.create_model_version("avatar-tiny", source=(tmp_path / "model").as_uri()).version
    client.set_registered_model_alias("avatar-tiny", "production", version)
    served = load_model("models:/avatar-tiny@production", downloads=tmp_path / "downloads", tracking_uri=uri)
    assert (served.name, served.version, served.pipeline.size) == ("avatar-tiny", "1", 16)
    for wrong in ("models:/avatar-tiny@canary", "models:/avatar-huge@production", "models:/avatar-tiny/9"):
        with pytest.raises(InputError, match="cannot be loaded"):
            load_model(wrong, downloads=tmp_path / "downloads", tracking_uri=uri)
    with pytest.raises(InputError, match="models:/name@alias"):
        load_model("models:/avatar-tiny", downloads=tmp_path / "downloads", tracking_uri=uri)
