"""A client that does not give up: it asks the next replica, and again, under one idempotency key."""

import heapq
import itertools
import threading
import time
from collections.abc import Sequence
from typing import Any

import httpx
from benchmarks.chaos.fleet import JobPlan

ANSWER_S = 5.0
AGAIN_S = 0.3
HTTP_CONFLICT, HTTP_TOO_MANY = 409, 429


class Refused(Exception):  # noqa: N818  # an answer, not a failure
    """The API said that the request is wrong, and trying again would not help."""


class Client:
    """Thread-safe; each call goes on until it is answered or its time is over."""

    def __init__(self, urls: Sequence[str], token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._https = [httpx.Client(base_url=url, headers=headers, timeout=ANSWER_S, trust_env=False) for url in urls]
        self._turn = 0

    def close(self) -> None:
        for http in self._https:
            http.close()

    def ask(self, method: str, path: str, *, within: float, **options: Any) -> dict[str, Any]:
        """The body of the first 2xx answer.

        Raises:
            Refused: a 4xx that is the request's own fault.
            TimeoutError: nobody answered within the time.
        """
        deadline, trouble = time.monotonic() + within, "nobody asked"
        while time.monotonic() < deadline:
            http = self._https[self._turn % len(self._https)]
            try:
                response = http.request(method, path, **options)
            except httpx.HTTPError as error:
                trouble = f"{type(error).__name__}: {error}"
            else:
                if response.is_success:
                    body: dict[str, Any] = response.json() if response.content else {}
                    return body
                trouble = f"{response.status_code} {response.text[:300]}"
                if response.is_client_error and response.status_code != HTTP_TOO_MANY:
                    raise Refused(f"{method} {path}: {trouble}")
            self._turn += 1
            time.sleep(AGAIN_S)
        raise TimeoutError(f"{method} {path}: {trouble}")


class Load:
    """Submits jobs at their times, and cancels those that are to be cancelled.

    Attributes:
        accepted: uid by name, of every job that was answered with a 2xx.
        waits: seconds from a job's time to its acceptance.
        refused: what the API said was wrong, though it was not.
    """

    def __init__(self, client: Client, jobs: Sequence[JobPlan], *, workers: int = 8, patience: float = 90.0) -> None:
        self.accepted: dict[str, str] = {}
        self.waits: list[float] = []
        self.refused: list[str] = []
        self.unanswered: list[str] = []
        self._client = client
        self._patience = patience
        self._began = time.monotonic()
        self._order = itertools.count()
        self._due: list[tuple[float, int, JobPlan, bool]] = [(job.at, next(self._order), job, False) for job in jobs]
        heapq.heapify(self._due)
        self._busy = 0
        self._changed = threading.Condition()
        self._stop = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]

    def start(self) -> None:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def is_done(self) -> bool:
        with self._changed:
            return not self._due and not self._busy

    def end(self) -> None:
        with self._changed:
            self._stop = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (found := self._next()) is not None:
            job, cancel = found
            try:
                if cancel:
                    self._cancel(job)
                else:
                    self._submit(job)
            except Refused as error:
                self.refused.append(str(error))
            except TimeoutError as error:
                self.unanswered.append(str(error))
            finally:
                with self._changed:
                    self._busy -= 1

    def _next(self) -> tuple[JobPlan, bool] | None:
        """The next thing to do, when its time has come; None at the end."""
        with self._changed:
            while not self._stop:
                wait = self._due[0][0] - (time.monotonic() - self._began) if self._due else 0.5
                if self._due and wait <= 0:
                    _, _, job, cancel = heapq.heappop(self._due)
                    self._busy += 1
                    return job, cancel
                self._changed.wait(min(wait, 0.5))
            return None

    def _submit(self, job: JobPlan) -> None:
        headers = {"Idempotency-Key": f"chaos-{job.name}"}
        path = f"/v1/jobs/{job.name}"
        body = self._client.ask("PUT", path, within=self._patience, json=job.document, headers=headers)
        now = time.monotonic() - self._began
        self.waits.append(now - job.at)
        with self._changed:
            self.accepted[job.name] = body["metadata"]["uid"]
            if job.cancel_after is not None:
                heapq.heappush(self._due, (now + job.cancel_after, next(self._order), job, True))
                self._changed.notify()

    def _cancel(self, job: JobPlan) -> None:
        try:
            self._client.ask("POST", f"/v1/jobs/{job.name}/cancel", within=self._patience)
        except Refused as error:
            if f" {HTTP_CONFLICT} " not in str(error):  # it may be over already
                raise
