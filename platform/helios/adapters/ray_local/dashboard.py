"""Ray's REST API: job submission and Serve's declarative applications.

The paths and bodies are those of `ray.dashboard.modules.{job,serve,state}` of Ray 2.60. Plain HTTP instead of Ray's own
client keeps Ray out of the control plane's process and lets it talk to several Rays, each with its own token.
"""

import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Self

import httpx

from helios.errors import EngineError, UnavailableError

Json = dict[str, Any]
_NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Ray is asked by plain HTTP on this machine; reading the list of authorities would take 30 ms of each question."""
_MOST_NODES = 10_000
"""Ray remembers 1,000 dead nodes and lists 10,000 at most."""


class Dashboard:
    """One Ray. Every call raises `UnavailableError` where Ray cannot be seen and `EngineError` where it refuses."""

    def __init__(self, url: str, token: str, *, timeout_s: float = 20.0) -> None:
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout_s,
            trust_env=False,
            verify=_NO_AUTHORITIES,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ping(self) -> None:
        """Return where the control store answers through the dashboard."""
        with self:
            self._call("GET", "/api/gcs_healthz", timeout=5.0)

    def nodes(self) -> list[Json]:
        """Return every node that Ray's control store remembers: `node_name`, `state` (`ALIVE`, `DEAD`), `labels`."""
        query = f"/api/v0/nodes?detail=1&limit={_MOST_NODES}&timeout=5"
        with self:
            answer = self._call("GET", query).json()
            if not answer["result"]:
                raise UnavailableError(f"Ray lists no nodes: {answer['msg']}")
            return list(answer["data"]["result"]["result"])

    def job(self, submission_id: str) -> Json | None:
        """Return Ray's record of a job, or None where it has none."""
        with self:
            response = self._call("GET", f"/api/jobs/{submission_id}", accept=(404,))
            return None if response.status_code == 404 else dict(response.json())

    def submit(self, submission_id: str, *, entrypoint: str, env: Mapping[str, str], hook: str, name: str) -> None:
        """Submit a job, or do nothing where Ray has it."""
        runtime_env: Json = {"env_vars": dict(env)}
        if hook:
            runtime_env["worker_process_setup_hook"] = hook
        body = {
            "entrypoint": entrypoint,
            "submission_id": submission_id,
            "runtime_env": runtime_env,
            "metadata": {"job_name": name},
            "entrypoint_num_cpus": 0,
        }
        with self:
            response = self._call("POST", "/api/jobs/", json=body, accept=(400, 500))
            if response.status_code == 200 or "already exists" in response.text:
                return
            why = _last_line(response.text)
            if response.status_code == 400 or "status code 400" in response.text:
                raise EngineError(f"Ray refused the job: {why}")
            raise UnavailableError(f"Ray takes no jobs now: {why}")  # it is still starting, or an agent of it is

    def stop_job(self, submission_id: str) -> None:
        with self:
            self._call("POST", f"/api/jobs/{submission_id}/stop", accept=(404,))

    def deploy(self, applications: Sequence[Json], *, port: int) -> None:
        """Make these the applications that Serve runs; others are taken down."""
        body = {
            "proxy_location": "HeadOnly",
            "http_options": {"host": "127.0.0.1", "port": port},
            "applications": list(applications),
        }
        with self:
            response = self._call("PUT", "/api/serve/applications/", json=body, timeout=60.0, accept=(400,))
            if response.status_code == 400:
                raise EngineError(f"Ray Serve refused the applications: {_last_line(response.text)}")

    def applications(self) -> dict[str, Json]:
        """Return what Serve says of each application, by name; empty where Serve was never started."""
        with self:
            body = self._call("GET", "/api/serve/applications/").json()
            return dict(body.get("applications") or {})

    def _call(
        self, method: str, path: str, *, accept: tuple[int, ...] = (), timeout: float = 20.0, json: Any = None
    ) -> httpx.Response:
        try:
            response = self._http.request(method, path, json=json, timeout=timeout)
        except httpx.TransportError as error:
            raise UnavailableError(f"Ray does not answer: {error or type(error).__name__}") from error
        if response.is_success or response.status_code in accept:
            return response
        raise UnavailableError(f"Ray answered {response.status_code} to {method} {path}: {_last_line(response.text)}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 3]
    return lines[-1][:500] if lines else "(nothing)"
