"""Reads secrets where the work runs. Values are never stored, named in errors or logged.

    env:NAME                       a variable of the cell's environment
    file:/path                     a file on the cell
    k8s:NAMESPACE/SECRET/KEY       Kubernetes, in whose cluster this runs, or by KUBECONFIG
    aws-sm:ID  aws-sm:ID#FIELD     AWS Secrets Manager; one field of a secret that is a JSON object

Kubernetes and AWS are asked through their own clients (`pip install 'helios-platform[secrets]'`), which are imported
only for a secret that needs them.
"""

import base64
import binascii
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

TIMEOUT_S = 10.0
"""How long a store of secrets may take to answer."""
EXTRA = "pip install 'helios-platform[secrets]' on the cell"


class SecretUnreadableError(Exception):
    """A secret that the work needs cannot be read on its cell; the text names it and says nothing of its value."""


class _UnreadableError(Exception):
    """Why; `resolve` says of which secret."""


def resolve(references: Mapping[str, str]) -> dict[str, str]:
    """Return the value of each secret by name. Raises `SecretUnreadableError`."""
    return {name: _read(name, reference) for name, reference in references.items()}


def enter_worker() -> None:
    """Put the secrets named in HELIOS_SECRETS into this process's environment (Ray's `worker_process_setup_hook`)."""
    os.environ.update(resolve(json.loads(os.environ.get("HELIOS_SECRETS", "{}"))))


def _read(name: str, reference: str) -> str:
    scheme, _, where = reference.partition(":")
    reader = _READERS.get(scheme)
    if reader is None:
        raise SecretUnreadableError(f"secret {name!r}: {scheme!r} is not one of {', '.join(_READERS)}")
    try:
        value = reader(where)
    except _UnreadableError as error:
        raise SecretUnreadableError(f"secret {name!r}: {error}") from None
    if "\0" in value:
        raise SecretUnreadableError(f"secret {name!r}: it has a zero byte, which no environment variable can hold")
    return value


def _env(where: str) -> str:
    if where not in os.environ:
        raise _UnreadableError(f"the cell's environment has no variable {where}")
    return os.environ[where]


def _file(where: str) -> str:
    try:
        return Path(where).read_text().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise _UnreadableError(f"{where} cannot be read ({why})") from None


def _kubernetes(where: str) -> str:
    try:
        namespace, secret, key = where.split("/")
    except ValueError:
        raise _UnreadableError(f"expected k8s:NAMESPACE/SECRET/KEY, got k8s:{where}") from None
    data = _kubernetes_secret(namespace, secret)
    if key not in data:
        known = ", ".join(sorted(data)) or "none"
        raise _UnreadableError(f"secret {secret} in namespace {namespace} has no key {key}; it has: {known}")
    try:
        return base64.b64decode(data[key], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise _UnreadableError(f"key {key} of secret {secret} in namespace {namespace} is not text") from None


def _kubernetes_secret(namespace: str, secret: str) -> Mapping[str, str]:
    try:
        from kubernetes import client, config
        from urllib3.exceptions import HTTPError
    except ImportError:
        raise _UnreadableError(f"secrets of Kubernetes need its client: {EXTRA}") from None
    configuration = client.Configuration()
    configuration.retries = 1
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            file = os.environ.get("KUBECONFIG")  # the client itself would look at it only once, when it is imported
            config.load_kube_config(file, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        raise _UnreadableError(f"no Kubernetes is configured on the cell: {error}") from None
    with client.ApiClient(configuration) as api:
        try:
            found = client.CoreV1Api(api).read_namespaced_secret(secret, namespace, _request_timeout=TIMEOUT_S)
        except client.ApiException as error:
            why = {403: "the cell may not read it", 404: "there is none"}.get(error.status, f"HTTP {error.status}")
            raise _UnreadableError(f"secret {secret} in namespace {namespace} of Kubernetes: {why}") from None
        except HTTPError as error:
            raise _UnreadableError(f"Kubernetes does not answer: {type(error).__name__}") from None
    return {key: str(value) for key, value in (found.data or {}).items()}


def _aws(where: str) -> str:
    name, hash_mark, field = where.partition("#")
    text = _aws_secret(name)
    if not hash_mark:
        return text
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise _UnreadableError(f"{name} in AWS Secrets Manager is no JSON object, so it has no field {field}")
    if field not in data:
        known = ", ".join(sorted(data)) or "none"
        raise _UnreadableError(f"{name} in AWS Secrets Manager has no field {field}; it has: {known}")
    value = data[field]
    return value if isinstance(value, str) else json.dumps(value)


def _aws_secret(name: str) -> str:
    try:
        import boto3  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
    except ImportError:
        raise _UnreadableError(f"secrets of AWS need its client: {EXTRA}") from None
    limits = Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"total_max_attempts": 3})
    try:
        answer: Mapping[str, Any] = boto3.client("secretsmanager", config=limits).get_secret_value(SecretId=name)
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "")) or "an error"
        raise _UnreadableError(f"{name} in AWS Secrets Manager: {code}") from None
    except (BotoCoreError, ValueError) as error:
        raise _UnreadableError(f"AWS Secrets Manager cannot be asked for {name}: {type(error).__name__}") from None
    if "SecretString" in answer:
        return str(answer["SecretString"])
    try:
        return bytes(answer["SecretBinary"]).decode()
    except UnicodeDecodeError:
        raise _UnreadableError(f"{name} in AWS Secrets Manager is not text") from None


_READERS: Mapping[str, Callable[[str], str]] = {"env": _env, "file": _file, "k8s": _kubernetes, "aws-sm": _aws}
