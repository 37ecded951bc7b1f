"""A secret is read where it lies; what cannot be read is said by name, and never by value."""

import builtins
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from helios.agent.secrets import SecretUnreadableError, resolve

VALUE = "s3cr3t-value-of-a-test"


def unreadable(reference: str) -> str:
    """Why the secret TOKEN cannot be read."""
    with pytest.raises(SecretUnreadableError) as caught:
        resolve({"TOKEN": reference})
    assert str(caught.value).startswith("secret 'TOKEN': ")
    assert VALUE not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, "a cause could show what was read"
    return str(caught.value)


def test_environment_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable as it is, a file without the line's end."""
    monkeypatch.setenv("THE_TOKEN", VALUE)
    (tmp_path / "token").write_text(f"{VALUE}\n")
    assert resolve({"A": "env:THE_TOKEN", "B": f"file:{tmp_path}/token"}) == {"A": VALUE, "B": VALUE}


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable, a file, a way to read that nobody knows."""
    monkeypatch.delenv("NO_TOKEN", raising=False)
    assert "no variable NO_TOKEN" in unreadable("env:NO_TOKEN")
    assert "No such file" in unreadable(f"file:{tmp_path}/token")
    assert "'vault' is not one of env, file, k8s, aws-sm" in unreadable("vault:secret/x")


def test_what_no_variable_can_hold(tmp_path: Path) -> None:
    """Bytes that are no text, or that would end a variable early."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "zero").write_text(f"{VALUE}\0rest")
    assert "it is not text" in unreadable(f"file:{tmp_path}/bytes")
    assert "zero byte" in unreadable(f"file:{tmp_path}/zero")


@pytest.mark.parametrize(("reference", "missing"), [("k8s:a/b/c", "kubernetes"), ("aws-sm:a", "boto3")])
def test_client_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, reference: str, missing: str) -> None:
    """Without the extra the message says what to install, and where."""
    found = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == missing:
            raise ImportError(name)
        return found(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install 'helios-platform[secrets]' on the cell" in unreadable(reference)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a Secrets Manager that answers over HTTP on this machine."""
    import boto3  # type: ignore[import-untyped]
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    httpx.post(f"http://{host}:{port}/moto-api/reset", trust_env=False).raise_for_status()
    for name in ("AWS_PROFILE", "AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield boto3.client("secretsmanager")
    server.stop()


def test_aws_secrets(aws: Any) -> None:
    """A secret as a whole, one field of a JSON object, a field that is no text, and bytes that are."""
    aws.create_secret(Name="team/token", SecretString=VALUE)
    aws.create_secret(Name="team/db", SecretString=f'{{"password": "{VALUE}", "ports": [1, 2]}}')
    aws.create_secret(Name="team/bytes", SecretBinary=VALUE.encode())
    assert resolve({
        "A": "aws-sm:team/token",
        "B": "aws-sm:team/db#password",
        "C": "aws-sm:team/db#ports",
        "D": "aws-sm:team/bytes",
    }) == {"A": VALUE, "B": VALUE, "C": "[1, 2]", "D": VALUE}  # fmt: skip


def test_aws_secrets_that_cannot_be_read(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such secret, no such field, no JSON, no region: each in its own words."""
    aws.create_secret(Name="team/token", SecretString=VALUE)
    aws.create_secret(Name="team/db", SecretString=f'{{"password": "{VALUE}"}}')
    aws.create_secret(Name="team/bytes", SecretBinary=b"\xff\xfe")
    assert "team/none in AWS Secrets Manager: ResourceNotFoundException" in unreadable("aws-sm:team/none")
    assert "no field user; it has: password" in unreadable("aws-sm:team/db#user")
    assert "is no JSON object" in unreadable("aws-sm:team/token#user")
    assert "is not text" in unreadable("aws-sm:team/bytes")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    assert "NoRegionError" in unreadable("aws-sm:team/token")


def test_kubernetes_that_is_not_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cluster around, and without a file that names one, that is what is said."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "no Kubernetes is configured on the cell" in unreadable("k8s:default/token/value")
    assert "expected k8s:NAMESPACE/SECRET/KEY" in unreadable("k8s:token")


@pytest.mark.kube
def test_kubernetes_secrets(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a real API server: a key's value; no such secret, no such key, no right to read, and no text."""
    from kubernetes import client, config

    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with config.new_client_from_config(str(kubeconfig)) as api:  # type: ignore[no-untyped-call]
        body = client.V1Secret(
            metadata=client.V1ObjectMeta(name="token"), string_data={"value": VALUE}, data={"bytes": "//4="}
        )
        client.CoreV1Api(api).create_namespaced_secret("default", body)
    assert resolve({"TOKEN": "k8s:default/token/value"}) == {"TOKEN": VALUE}
    assert "there is none" in unreadable("k8s:default/none/value")
    assert "has no key user; it has: bytes, value" in unreadable("k8s:default/token/user")
    assert "is not text" in unreadable("k8s:default/token/bytes")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig.with_name("restricted.kubeconfig")))
    assert "the cell may not read it" in unreadable("k8s:default/token/value")


@pytest.mark.kube
def test_kubernetes_that_does_not_answer(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An API server that is away is said as such."""
    import yaml

    away = yaml.safe_load(kubeconfig.read_text())
    away["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "away").write_text(yaml.safe_dump(away))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "away"))
    assert "Kubernetes does not answer" in unreadable("k8s:default/token/value")
