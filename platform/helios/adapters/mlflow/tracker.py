"""`Tracker` over MLflow's REST API: closes a curriculum's parent run. Plain HTTP keeps MLflow out of this process."""

import time
from collections.abc import Callable
from typing import Any

import httpx

from helios.errors import EngineError, UnavailableError

CURRICULUM_TAG = "helios.curriculum_uid"
PARENT_TAG = "mlflow.parentRunId"


class MlflowTracker:
    """Finds runs by tag, so that nothing about MLflow needs to be remembered.

    Args:
        uri: asked for at each call: the server may have moved to another port.
    """

    def __init__(self, uri: Callable[[], str], *, timeout_s: float = 30.0) -> None:
        self._uri = uri
        self._timeout_s = timeout_s

    def end_curriculum(self, curriculum_uid: str, *, succeeded: bool) -> None:
        """Close the curriculum's open parent runs; a no-op where there is none. Raises `UnavailableError`."""
        status = "FINISHED" if succeeded else "FAILED"
        for run in self._runs_of(curriculum_uid):
            tags = {tag["key"]: tag["value"] for tag in run.get("data", {}).get("tags", [])}
            if PARENT_TAG not in tags and run["info"]["status"] == "RUNNING":
                end = {"run_id": run["info"]["run_id"], "status": status, "end_time": int(time.time() * 1000)}
                self._post("runs/update", end)

    def _runs_of(self, curriculum_uid: str) -> list[dict[str, Any]]:
        quoted = curriculum_uid.replace("'", "")
        experiments = [item["experiment_id"] for item in self._pages("experiments/search", "experiments", {})]
        if not experiments:
            return []
        query = {"experiment_ids": experiments, "filter": f"tags.`{CURRICULUM_TAG}` = '{quoted}'"}
        return self._pages("runs/search", "runs", query)

    def _pages(self, path: str, key: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            body = self._post(path, {**query, "max_results": 1000, **({"page_token": token} if token else {})})
            found += body.get(key, [])
            token = body.get("next_page_token", "")
            if not token:
                return found

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{self._uri()}/api/2.0/mlflow/{path}"
        try:
            response = httpx.post(url, json=body, timeout=self._timeout_s, trust_env=False)
        except (httpx.TransportError, httpx.UnsupportedProtocol) as error:
            raise UnavailableError(f"MLflow does not answer: {error}") from error
        if response.is_success:
            return dict(response.json())
        if response.status_code >= 500:
            raise UnavailableError(f"MLflow answered {response.status_code} to {path}")
        raise EngineError(f"MLflow refused {path}: {response.text[:300]}")
